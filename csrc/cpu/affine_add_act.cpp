// fusedres_cpu::affine_add_act
#include "cpu/kernels/params.h"
#include "cpu/tensor.h"

namespace fusedres::cpu {
namespace {

Tensor affine_add_act(
    const Tensor& a, const Tensor& sa, const Tensor& ta, const OptionalTensor& b, const OptionalTensor& sb,
    const OptionalTensor& tb, bool relu) {
  constexpr const char* op = "affine_add_act";
  check_activation(op, "a", a);
  if (b.has_value()) check_like(op, "b", *b, a);
  const int64_t channels = a.size(1);
  const ChannelVector vsa(op, "sa", sa, channels), vta(op, "ta", ta, channels);
  const ChannelVector vsb(op, "sb", sb, channels), vtb(op, "tb", tb, channels);
  STD_TORCH_CHECK(sb.has_value() == tb.has_value(), op, ": `sb` and `tb` go together; got only one");
  Tensor out = empty_as(a);
  dispatch_element(a, [&](auto element) {
    using T = decltype(element);
    const AffineAddAct<T> params{data<T>(a), data<T>(b),           vsa.get(), vta.get(), vsb.get(),
                                 vtb.get(),  mutable_data<T>(out), channels,  relu,      streams(out)};
    parallel(rows_of(a), channels, [&](int64_t begin, int64_t end) {
      kernels().of<T>().affine_add_act(params, begin, end);
    });
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fusedres_cpu, CPU, m) { m.impl("affine_add_act", TORCH_BOX(&affine_add_act)); }

}  // namespace fusedres::cpu
