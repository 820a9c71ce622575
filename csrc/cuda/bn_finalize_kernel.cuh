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
  Floats<kN> vars, invstds, scales, shifts;
#pragma unroll
  for (int i = 0; i < kN; ++i) {
    const int64_t c = channel + i;
    // of no values: mean and variance 0
    const double var = total.count > 0.0f ? static_cast<double>(total.m2[i]) / total.count : 0.0;
    const double invstd = 1.0 / sqrt(var + k.eps);
    const double gamma = k.gamma.present() ? k.gamma[c] : 1.0f, beta = k.beta.present() ? k.beta[c] : 0.0f;
    vars[i] = static_cast<float>(var);
    invstds[i] = static_cast<float>(invstd);
    scales[i] = static_cast<float>(invstd * gamma);
    // of the rounded mean and scale, so that the affine takes the mean to beta as exactly as fp32 can
    shifts[i] = static_cast<float>(beta - static_cast<double>(total.mean[i]) * scales[i]);
  }
  store(k.out_mean + channel, total.mean);
  store(k.var + channel, vars);
  store(k.invstd + channel, invstds);
  store(k.scale + channel, scales);
  store(k.shift + channel, shifts);
}

template <int kN>
__global__ void __launch_bounds__(kFinalizeHeight* kFinalizeChannels / 4)
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
