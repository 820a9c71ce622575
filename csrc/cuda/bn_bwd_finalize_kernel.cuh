#pragma once

#include "cuda/bn_bwd_finalize.h"

namespace fusedres::cuda {

constexpr int kBwdFinalizeThreads = 128;

__global__ void __launch_bounds__(kBwdFinalizeThreads) bn_bwd_finalize_kernel(const BnBwdFinalizeParams k) {
  const int64_t c = static_cast<int64_t>(blockIdx.x) * kBwdFinalizeThreads + threadIdx.x;
  if (c >= k.channels) return;
  const float sum = k.sums[c], dot = k.sums[k.channels + c], invstd = k.invstd[c];
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
