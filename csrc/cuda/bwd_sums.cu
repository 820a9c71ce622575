#include "cuda/bwd_sums_kernel.cuh"

namespace fusedres::cuda {

void launch_merge_sums(const MergeSumsParams& params, const Target& target) {
  const auto blocks = static_cast<unsigned>(ceil_div<int64_t>(params.channels, kMergeChannels));
  launch("merge_sums", merge_sums_kernel, {dim3(blocks), dim3(kMergeChannels, kMergeHeight)}, target, params);
}

}  // namespace fusedres::cuda
