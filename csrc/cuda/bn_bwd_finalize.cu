#include "cuda/bn_bwd_finalize_kernel.cuh"

namespace fusedres::cuda {

void launch_bn_bwd_finalize(const BnBwdFinalizeParams& params, const Target& target) {
  const auto blocks = static_cast<unsigned>(ceil_div<int64_t>(params.channels, kBwdFinalizeThreads));
  launch(
      "bn_bwd_finalize", bn_bwd_finalize_kernel, {dim3(blocks), dim3(kBwdFinalizeThreads)}, target, params);
}

}  // namespace fusedres::cuda
