#include "cuda/bn_bwd_finalize_kernel.cuh"

namespace fusedres::cuda {

void launch_bn_bwd_finalize(const BnBwdFinalizeParams& params, const Target& target) {
  const auto blocks = static_cast<unsigned>(ceil_div<int64_t>(params.channels, kBwdFinalizeChannels));
  const Grid grid{dim3(blocks), dim3(kBwdFinalizeChannels, kBwdFinalizeHeight)};
  launch("bn_bwd_finalize", bn_bwd_finalize_kernel, grid, target, params);
}

}  // namespace fusedres::cuda
