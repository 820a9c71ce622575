#pragma once

#include "common/element.h"
#include "cuda/conv/weights.h"

namespace fusedres::cuda {

// A block moves 32 rows x 32 channels of a tap through shared memory: weights are read along C, which is
// their fastest dimension channels_last, and written along the source's channels, which are K in a gradient.
constexpr int kPackTile = 32, kPackLines = 8;

template <typename T>
__device__ __forceinline__ T packed_value(const PackWeightsParams& p, int row, int depth, int tap) {
  int channel = row / p.block_rows * p.block_depth + depth, r = tap / p.taps_w, s = tap % p.taps_w;
  const int group = row / p.group_rows;
  if (row >= p.rows || depth >= p.block_depth) return T{};
  if (p.flat_channels > 0) {
    r = tap;
    s = depth / p.flat_channels;
    channel = depth % p.flat_channels;
  }
  if (channel / p.group_depth != group) return T{};
  const int64_t k = p.gradient ? channel : row;
  const int64_t c = p.gradient ? row - group * p.group_rows : channel - group * p.group_depth;
  return static_cast<const T*>(p.weight)[k * p.stride_k + c * p.stride_c + r * p.stride_r + s * p.stride_s];
}

template <typename T>
__global__ void __launch_bounds__(kPackTile* kPackLines) pack_weights_kernel(const PackWeightsParams p) {
  __shared__ T tile[kPackTile][kPackTile + 2];  // two elements more: columns of a tile lie in different banks
  const int first_row = blockIdx.x * kPackTile, first_depth = blockIdx.y * kPackTile, tap = blockIdx.z;
#pragma unroll
  for (int line = threadIdx.y; line < kPackTile; line += kPackLines) {
    const int row = p.gradient ? threadIdx.x : line, depth = p.gradient ? line : threadIdx.x;
    tile[row][depth] = packed_value<T>(p, first_row + row, first_depth + depth, tap);
  }
  __syncthreads();
#pragma unroll
  for (int line = threadIdx.y; line < kPackTile; line += kPackLines) {
    const int row = first_row + line, depth = first_depth + threadIdx.x;
    if (row >= p.rows || depth >= p.packed_depth) continue;
    const int64_t at = (static_cast<int64_t>(row) * p.taps + tap) * p.packed_depth + depth;
    static_cast<T*>(p.packed)[at] = tile[line][threadIdx.x];
  }
}

}  // namespace fusedres::cuda
