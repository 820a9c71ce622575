#pragma once

#include "cuda/bn_finalize.h"
#include "cuda/common/reduce.cuh"

namespace fusedres::cuda {

// A block has 8 channels, one 32-byte sector of a tile's row, and up to this many threads down the tiles: a
// convolution has thousands of tiles and may have 64 channels, and 8 blocks of 256 threads read them at once.
constexpr int kFinalizeChannels = 8, kFinalizeHeight = 256;

template <int kN>
__device__ __forceinline__ void normalise(
    const BnFinalizeParams& k, const Moments<kN>& total, int64_t channel) {
#pragma unroll
  for (int i = 0; i < kN; ++i) {
    const int64_t c = channel + i;
    // of no values: mean and variance 0
    const double var = total.count > 0.0f ? static_cast<double>(total.m2[i]) / total.count : 0.0;
    const double invstd = 1.0 / sqrt(var + k.eps);
    const double gamma = k.gamma.present() ? k.gamma[c] : 1.0f, beta = k.beta.present() ? k.beta[c] : 0.0f;
    const float scale = static_cast<float>(invstd * gamma);
    k.out_mean[c] = total.mean[i];
    k.var[c] = static_cast<float>(var);
    k.invstd[c] = static_cast<float>(invstd);
    k.scale[c] = scale;
    // of the rounded mean and scale, so that the affine takes the mean to beta as exactly as fp32 can
    k.shift[c] = static_cast<float>(beta - static_cast<double>(total.mean[i]) * scale);
  }
}

template <int kN>
__global__ void __launch_bounds__(kFinalizeHeight* kFinalizeChannels / kN)
    bn_finalize_kernel(const BnFinalizeParams k) {
  extern __shared__ char shared[];
  const int64_t channel = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * kN;
  const bool active = channel < k.channels;
  Moments<kN> total = Moments<kN>::none();
  if (active) {
#pragma unroll 4
    for (int64_t tile = threadIdx.y; tile < k.tiles; tile += blockDim.y) {
      const int64_t at = tile * k.channels + channel;
      total.merge({k.count[tile], load<float, kN>(k.mean + at), load<float, kN>(k.m2 + at)});
    }
  }
  fold_rows(total, reinterpret_cast<Moments<kN>*>(shared), [](Moments<kN>& mine, const Moments<kN>& theirs) {
    mine.merge(theirs);
  });
  if (threadIdx.y == 0 && active) normalise(k, total, channel);
}

}  // namespace fusedres::cuda
