// The weight gradient from the sums over each part of the pixels.
#pragma once

#include "cuda/conv_wgrad.h"

namespace fusedres::cuda {

constexpr int kWgradReduceThreads = 256;
constexpr int kWgradReduceValues = 2048;  // a block's, at most

// The parts have a weight's channels side by side, dw its taps: a block turns its tile around in shared
// memory, so that it reads and writes whole lines.
template <typename T>
__global__ void __launch_bounds__(kWgradReduceThreads)
    conv_wgrad_reduce_kernel(const __grid_constant__ ConvWgradReduceParams p) {
  __shared__ float tile[kWgradReduceValues];  // words: a column of 9 taps then lies in different banks
  const int first_channel = static_cast<int>(blockIdx.y) * p.tile_channels;
  const int first_tap = static_cast<int>(blockIdx.z) * p.tile_taps;
  const int channels = min(p.tile_channels, p.group_channels - first_channel);
  const int taps = min(p.tile_taps, p.taps - first_tap);
  const int64_t row = static_cast<int64_t>(blockIdx.x) * p.taps * p.group_channels;
  const float* const parts =
      p.parts + row + static_cast<int64_t>(first_tap) * p.group_channels + first_channel;

  for (int i = threadIdx.x; i < channels * taps; i += kWgradReduceThreads) {
    const int tap = i / channels, channel = i - tap * channels;
    const float* part = parts + static_cast<int64_t>(tap) * p.group_channels + channel;
    float sum = 0.0f;
#pragma unroll 4
    for (int split = 0; split < p.splits; ++split, part += p.part_values) sum += *part;
    tile[channel * taps + tap] = sum;
  }
  __syncthreads();
  T* const dw = static_cast<T*>(p.dw) + row + static_cast<int64_t>(first_channel) * p.taps + first_tap;
  for (int i = threadIdx.x; i < channels * taps; i += kWgradReduceThreads) dw[i] = from_float<T>(tile[i]);
}

}  // namespace fusedres::cuda
