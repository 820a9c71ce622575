// A warp's operands in registers, and its share of the products.
#pragma once

#include "cuda/conv/mma.cuh"
#include "cuda/conv/swizzle.cuh"
#include "cuda/conv/tile.cuh"

namespace fusedres::cuda {

// Which 16-byte row of an operand a lane names for ldmatrix.x4. The left operand's four matrices are rows 0-7
// and 8-15 of the first chunk, then of the second; the right operand's are both chunks of rows 0-7, then of
// 8-15.
__device__ __forceinline__ int left_row() { return threadIdx.x % 16; }
__device__ __forceinline__ int left_chunk() { return threadIdx.x / 16 % 2; }
__device__ __forceinline__ int right_row() { return threadIdx.x % 8 + threadIdx.x / 16 % 2 * 8; }
__device__ __forceinline__ int right_chunk() { return threadIdx.x / 8 % 2; }

template <typename T>
__device__ __forceinline__ void load_fragment(uint32_t (&fragment)[4], uint32_t address) {
  ldmatrix_x4(fragment, address);
  if constexpr (sizeof(T) == 4) {
#pragma unroll
    for (int i = 0; i < 4; ++i) fragment[i] = to_tf32(fragment[i]);
  }
}

template <typename Tile>
using Accumulators = float[Tile::kMmasM][Tile::kMmasN][4];

template <typename Tile>
__device__ __forceinline__ void clear(Accumulators<Tile>& sums) {
#pragma unroll
  for (int i = 0; i < Tile::kMmasM; ++i) {
#pragma unroll
    for (int j = 0; j < Tile::kMmasN; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) sums[i][j][e] = 0.0f;
    }
  }
}

// One matrix instruction deep: right fragments are loaded ahead, left ones row by row; `between(i)` is called
// after the i-th row of products, so that copies for a later stage issue among them rather than in a burst.
template <typename T, typename Tile, typename LoadRight, typename LeftAddress, typename Between>
__device__ __forceinline__ void multiply_step(
    Accumulators<Tile>& sums, LoadRight&& load_right, LeftAddress&& left, Between&& between) {
  uint32_t b[Tile::kMmasN / 2][4];
#pragma unroll
  for (int j = 0; j < Tile::kMmasN / 2; ++j) load_right(b[j], j);
#pragma unroll
  for (int i = 0; i < Tile::kMmasM; ++i) {
    uint32_t a[4];
    load_fragment<T>(a, left(i));
#pragma unroll
    for (int j = 0; j < Tile::kMmasN; ++j)
      mma<T>(sums[i][j], a, b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
    between(i);
  }
}

}  // namespace fusedres::cuda
