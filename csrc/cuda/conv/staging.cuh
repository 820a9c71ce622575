// A tile of fp32 results in shared memory: written as matrix instructions leave them, read a row's chunk a
// thread.
#pragma once

#include "cuda/conv/chunk.cuh"
#include "cuda/conv/tile.cuh"

namespace fusedres::cuda {

// kM x kN floats. Four of them, a quad, are stored at quad ^ f(row), such that neither the 8-byte writes
// (half a warp: 4 rows x 2 quads) nor the 16-byte reads (8 threads: every second quad of a row) meet a bank
// twice.
template <typename Tile>
struct Staging {
  static constexpr int kBytes = Tile::kM * Tile::kN * 4;

  __device__ static int at(int row, int quad) {
    const int odd = Tile::kN >= 64 ? quad >> 3 : row;
    return row * Tile::kN + ((quad ^ ((row & 3) << 1) ^ (odd & 1)) << 2);
  }

  // The accumulators of a warp at (row, column) of the tile.
  __device__ static void write(
      float* staged, const float (&sums)[Tile::kMmasM][Tile::kMmasN][4], int row, int column) {
    const int lane = threadIdx.x % kWarpSize;
#pragma unroll
    for (int i = 0; i < Tile::kMmasM; ++i) {
#pragma unroll
      for (int j = 0; j < Tile::kMmasN; ++j) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int r = row + i * kMmaM + half * 8 + lane / 4;
          const int c = column + j * kMmaN + (lane % 4) * 2;
          *reinterpret_cast<float2*>(staged + at(r, c / 4) + c % 4) =
              make_float2(sums[i][j][2 * half], sums[i][j][2 * half + 1]);
        }
      }
    }
  }

  template <typename T>
  __device__ static Values<T> read(const float* staged, int row, int chunk) {
    constexpr int kQuads = kPerChunk<T> / 4;
    Values<T> values;
#pragma unroll
    for (int q = 0; q < kQuads; ++q) {
      const float4 four = *reinterpret_cast<const float4*>(staged + at(row, chunk * kQuads + q));
      values[4 * q] = four.x;
      values[4 * q + 1] = four.y;
      values[4 * q + 2] = four.z;
      values[4 * q + 3] = four.w;
    }
    return values;
  }
};

}  // namespace fusedres::cuda
