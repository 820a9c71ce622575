// Shared-memory tiles of 16-byte chunks, laid out so that ldmatrix and 16-byte copies meet no bank conflict.
#pragma once

#include <cstdint>

namespace fusedres::cuda {

constexpr int kChunkBytes = 16;

// A row is kChunks chunks, without padding. Eight rows' chunks of one column, which ldmatrix reads together,
// must lie in the eight 16-byte columns of the 128-byte bank line: chunk c of row r is stored at c ^ f(r),
// where f takes a new value as often as rows start a new line.
template <int kChunks>
struct Swizzle {
  static_assert(kChunks == 2 || kChunks == 4 || kChunks == 8, "rows of 32, 64 or 128 bytes");
  static constexpr int kRowBytes = kChunks * kChunkBytes;
  static constexpr int kRowsPerLine = 8 / kChunks;

  // What a row's chunks are XORed with: constant over rows 8 apart, so a thread computes it once.
  __device__ static constexpr int mask(int row) { return (row / kRowsPerLine) % kChunks; }

  // Byte offset of a chunk in the tile.
  __device__ static constexpr uint32_t at(int row, int chunk) {
    return static_cast<uint32_t>(row * kRowBytes + ((chunk ^ mask(row)) * kChunkBytes));
  }
};

}  // namespace fusedres::cuda
