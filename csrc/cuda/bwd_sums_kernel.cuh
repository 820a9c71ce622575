#pragma once

#include "cuda/bwd_sums.h"
#include "cuda/common/reduce.cuh"

namespace fusedres::cuda {

// A block has 8 channels, a 32-byte sector of every row of partial sums, by 32 rows.
constexpr int kMergeChannels = 8, kMergeHeight = 32;

__device__ __forceinline__ ExactSums<1> merged(
    const MergeSumsParams& k, int kind, int64_t channel, ExactSums<1>* scratch) {
  ExactSums<1> total = ExactSums<1>::none();
  if (channel < k.channels && kind < k.kinds) {
#pragma unroll 4
    for (int64_t block = threadIdx.y; block < k.blocks; block += kMergeHeight)
      total.add(load<float, 1>(k.partial + (block * k.kinds + kind) * k.channels + channel));
  }
  fold_rows(total, scratch, [](ExactSums<1>& mine, const ExactSums<1>& theirs) { mine.add(theirs); });
  return total;
}

__global__ void __launch_bounds__(kMergeChannels* kMergeHeight) merge_sums_kernel(const MergeSumsParams k) {
  __shared__ ExactSums<1> scratch[kMergeChannels * kMergeHeight];
  const int64_t c = static_cast<int64_t>(blockIdx.x) * kMergeChannels + threadIdx.x;
  const ExactSums<1> sum = merged(k, 0, c, scratch), dot = merged(k, 1, c, scratch),
                     dot2 = merged(k, 2, c, scratch);
  if (threadIdx.y != 0 || c >= k.channels) return;
  k.sums[c] = sum[0];
  k.sums[k.channels + c] = k.invstd == nullptr ? 0.0f : dot[0] * k.invstd[c];
  if (k.sums2 == nullptr) return;
  k.sums2[c] = sum[0];
  k.sums2[k.channels + c] = dot2[0] * k.invstd2[c];
}

}  // namespace fusedres::cuda
