#pragma once

#include "cuda/bn_bwd_finalize.h"
#include "cuda/common/reduce.cuh"

namespace fusedres::cuda {

// A block has 8 channels, a 32-byte sector of every row of sums, by 32 parts.
constexpr int kBwdFinalizeChannels = 8, kBwdFinalizeHeight = 32;

// The parts' sums of a kind, in their order.
__device__ __forceinline__ float merged(
    const BnBwdFinalizeParams& k, int kind, int64_t channel, ExactSums<1>* scratch) {
  ExactSums<1> total = ExactSums<1>::none();
  if (channel < k.channels) {
#pragma unroll 4
    for (int64_t part = threadIdx.y; part < k.parts; part += kBwdFinalizeHeight)
      total.add(load<float, 1>(k.sums + (part * 2 + kind) * k.channels + channel));
  }
  fold_rows(total, scratch, [](ExactSums<1>& mine, const ExactSums<1>& theirs) { mine.add(theirs); });
  return total[0];
}

__global__ void __launch_bounds__(kBwdFinalizeChannels* kBwdFinalizeHeight)
    bn_bwd_finalize_kernel(const BnBwdFinalizeParams k) {
  __shared__ ExactSums<1> scratch[kBwdFinalizeChannels * kBwdFinalizeHeight];
  const int64_t c = static_cast<int64_t>(blockIdx.x) * kBwdFinalizeChannels + threadIdx.x;
  const float sum = merged(k, 0, c, scratch), dot = merged(k, 1, c, scratch);
  if (threadIdx.y != 0 || c >= k.channels) return;
  const float invstd = k.invstd[c];
  const double scale = static_cast<double>(invstd) * (k.gamma.present() ? k.gamma[c] : 1.0f);
  const float slope = k.frozen ? 0.0f : static_cast<float>(-scale * invstd * dot / k.values);
  // of the rounded slope, so that q * y + r vanishes at the mean as exactly as fp32 can
  const double rest = -scale * sum / k.values - static_cast<double>(slope) * k.mean[c];
  k.dgamma[c] = dot;
  k.dbeta[c] = sum;
  k.p[c] = static_cast<float>(scale);
  k.q[c] = slope;
  k.r[c] = k.frozen ? 0.0f : static_cast<float>(rest);
}

}  // namespace fusedres::cuda
