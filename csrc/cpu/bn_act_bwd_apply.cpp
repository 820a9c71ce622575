// fusedres_cpu::bn_act_bwd_apply
#include <tuple>

#include "cpu/kernels/params.h"
#include "cpu/tensor.h"

namespace fusedres::cpu {
namespace {

std::tuple<Tensor, Tensor> bn_act_bwd_apply(
    const Tensor& dz, const Tensor& y, const Tensor& p, const Tensor& q, const Tensor& r,
    const OptionalTensor& y2, const OptionalTensor& p2, const OptionalTensor& q2, const OptionalTensor& r2) {
  constexpr const char* op = "bn_act_bwd_apply";
  check_activation(op, "dz", dz);
  check_like(op, "y", y, dz);
  if (y2.has_value()) check_like(op, "y2", *y2, dz);
  const bool all = p2.has_value() && q2.has_value() && r2.has_value();
  STD_TORCH_CHECK(!y2.has_value() || all, op, ": `y2`, `p2`, `q2` and `r2` go together; got only some");
  const int64_t channels = dz.size(1);
  const ChannelVector vp(op, "p", p, channels), vq(op, "q", q, channels), vr(op, "r", r, channels);
  const ChannelVector vp2(op, "p2", p2, channels), vq2(op, "q2", q2, channels), vr2(op, "r2", r2, channels);
  Tensor dy = empty_as(dz), dy2 = y2.has_value() ? empty_as(dz) : absent(dz);
  dispatch_element(dz, [&](auto element) {
    using T = decltype(element);
    const BnActBwdApply<T> params{
        data<T>(dz),
        data<T>(y),
        data<T>(y2),
        vp.get(),
        vq.get(),
        vr.get(),
        vp2.get(),
        vq2.get(),
        vr2.get(),
        mutable_data<T>(dy),
        mutable_data<T>(dy2),
        channels,
        streams(dy) && (!y2.has_value() || streams(dy2))};
    parallel(rows_of(dz), channels, [&](int64_t begin, int64_t end) {
      kernels().of<T>().bn_act_bwd_apply(params, begin, end);
    });
  });
  return {dy, dy2};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fusedres_cpu, CPU, m) { m.impl("bn_act_bwd_apply", TORCH_BOX(&bn_act_bwd_apply)); }

}  // namespace fusedres::cpu
