// fusedres_cuda::affine_add_act
#include "cuda/affine_add_act.h"

#include "cuda/common/tensor.h"

namespace fusedres::cuda {
namespace {

Tensor affine_add_act(
    const Tensor& a, const Tensor& sa, const Tensor& ta, const OptionalTensor& b, const OptionalTensor& sb,
    const OptionalTensor& tb, bool relu) {
  constexpr const char* op = "affine_add_act";
  check_activation(op, "a", a);
  check_like(op, "b", b, a);
  STD_TORCH_CHECK(sb.has_value() == tb.has_value(), op, ": `sb` and `tb` go together; got only one");
  const OnDevice device(op, a);
  const int64_t channels = a.size(1);
  const ChannelVector vsa(op, "sa", sa, channels, a), vta(op, "ta", ta, channels, a);
  const ChannelVector vsb(op, "sb", sb, channels, a), vtb(op, "tb", tb, channels, a);
  Tensor out = empty_as(a);
  dispatch_element(a, [&](auto element) {
    using T = decltype(element);
    const AffineAddActParams<T> params{data<T>(a), data<T>(b),           vsa.get(),  vta.get(), vsb.get(),
                                       vtb.get(),  mutable_data<T>(out), rows_of(a), channels};
    const bool aligned = are_aligned(params.a, params.b, params.sa, params.ta, params.sb, params.tb);
    launch_affine_add_act(params, relu, aligned, device.target());
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fusedres_cuda, CUDA, m) { m.impl("affine_add_act", TORCH_BOX(&affine_add_act)); }

}  // namespace fusedres::cuda
