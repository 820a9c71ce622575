#include "cuda/bn_act_bwd_apply_kernel.cuh"

namespace fusedres::cuda {
namespace {

template <typename T, int kN>
void launch_values(const BnActBwdApplyParams<T>& params, const Target& target) {
  const auto kernel =
      params.y2 == nullptr ? bn_act_bwd_apply_kernel<T, kN> : bn_act_bwd_apply_two_kernel<T, kN>;
  const Grid grid = row_grid(params.rows, params.channels, pointwise_layout(kN), target);
  launch("bn_act_bwd_apply", kernel, grid, target, params);
}

}  // namespace

template <typename T>
void launch_bn_act_bwd_apply(const BnActBwdApplyParams<T>& params, bool aligned, const Target& target) {
  const bool vectors = aligned && params.channels % kVec<T> == 0;
  vectors ? launch_values<T, kVec<T>>(params, target) : launch_values<T, 1>(params, target);
}

template void launch_bn_act_bwd_apply(const BnActBwdApplyParams<Half>&, bool, const Target&);
template void launch_bn_act_bwd_apply(const BnActBwdApplyParams<BFloat16>&, bool, const Target&);
template void launch_bn_act_bwd_apply(const BnActBwdApplyParams<float>&, bool, const Target&);

}  // namespace fusedres::cuda
