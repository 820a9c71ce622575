// The table of kernels of one element type; bn_act_bwd_reduce_<dtype>.cu instantiates it.
#pragma once

#include "cuda/bn_act_bwd_reduce_kernel.cuh"

namespace fusedres::cuda {

template <typename T, int kN>
auto bn_act_bwd_reduce_of(Mask mask, int dots) {
  using Kernel = void (*)(BnActBwdReduceParams<T>);
  static constexpr Kernel kKernels[3][3] = {
      {bn_act_bwd_reduce_kernel<T, kN, Mask::kNone, 0>, bn_act_bwd_reduce_kernel<T, kN, Mask::kNone, 1>,
       bn_act_bwd_reduce_kernel<T, kN, Mask::kNone, 2>},
      {bn_act_bwd_reduce_kernel<T, kN, Mask::kOut, 0>, bn_act_bwd_reduce_kernel<T, kN, Mask::kOut, 1>,
       bn_act_bwd_reduce_kernel<T, kN, Mask::kOut, 2>},
      {bn_act_bwd_reduce_kernel<T, kN, Mask::kAffine, 0>, bn_act_bwd_reduce_kernel<T, kN, Mask::kAffine, 1>,
       bn_act_bwd_reduce_kernel<T, kN, Mask::kAffine, 2>}};
  return kKernels[static_cast<int>(mask)][dots];
}

template <typename T>
Grid bn_act_bwd_reduce_grid(int64_t rows, int64_t channels, bool aligned, const Target& target) {
  return row_grid(rows, channels, {values_of<T>(channels, aligned), kReduceRows, 2}, target);
}

template <typename T>
void launch_bn_act_bwd_reduce(
    const BnActBwdReduceParams<T>& params, Mask mask, int dots, const Grid& grid, bool aligned,
    const Target& target) {
  const bool vectors = values_of<T>(params.channels, aligned) > 1;
  const auto kernel =
      vectors ? bn_act_bwd_reduce_of<T, kVec<T>>(mask, dots) : bn_act_bwd_reduce_of<T, 1>(mask, dots);
  launch("bn_act_bwd_reduce", kernel, grid, target, params);
}

#define FUSEDRES_INSTANTIATE_BN_ACT_BWD_REDUCE(T)                                 \
  template Grid bn_act_bwd_reduce_grid<T>(int64_t, int64_t, bool, const Target&); \
  template void launch_bn_act_bwd_reduce(                                         \
      const BnActBwdReduceParams<T>&, Mask, int, const Grid&, bool, const Target&)

}  // namespace fusedres::cuda
