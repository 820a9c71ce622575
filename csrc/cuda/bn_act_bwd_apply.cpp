// fusedres_cuda::bn_act_bwd_apply
#include "cuda/bn_act_bwd_apply.h"

#include <tuple>

#include "cuda/common/tensor.h"

namespace fusedres::cuda {
namespace {

std::tuple<Tensor, Tensor> bn_act_bwd_apply(
    const Tensor& dz, const Tensor& y, const Tensor& p, const Tensor& q, const Tensor& r,
    const OptionalTensor& y2, const OptionalTensor& p2, const OptionalTensor& q2, const OptionalTensor& r2) {
  constexpr const char* op = "bn_act_bwd_apply";
  check_activation(op, "dz", dz);
  check_like(op, "y", y, dz);
  check_like(op, "y2", y2, dz);
  const bool all = p2.has_value() && q2.has_value() && r2.has_value();
  STD_TORCH_CHECK(!y2.has_value() || all, op, ": `y2`, `p2`, `q2` and `r2` go together; got only some");
  const OnDevice device(op, dz);
  const int64_t channels = dz.size(1);
  const ChannelVector vp(op, "p", p, channels, dz), vq(op, "q", q, channels, dz),
      vr(op, "r", r, channels, dz);
  const ChannelVector vp2(op, "p2", p2, channels, dz), vq2(op, "q2", q2, channels, dz);
  const ChannelVector vr2(op, "r2", r2, channels, dz);
  Tensor dy = empty_as(dz), dy2 = y2.has_value() ? empty_as(dz) : absent(dz);
  dispatch_element(dz, [&](auto element) {
    using T = decltype(element);
    const BnActBwdApplyParams<T> k{data<T>(dz),
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
                                   rows_of(dz),
                                   channels};
    const bool aligned = are_aligned(k.dz, k.y, k.y2, k.p, k.q, k.r, k.p2, k.q2, k.r2);
    launch_bn_act_bwd_apply(k, aligned, device.target());
  });
  return {dy, dy2};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fusedres_cuda, CUDA, m) {
  m.impl("bn_act_bwd_apply", TORCH_BOX(&bn_act_bwd_apply));
}

}  // namespace fusedres::cuda
