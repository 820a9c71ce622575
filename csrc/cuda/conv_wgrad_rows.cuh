// How a block of the weight gradient loads its operands, rows of pixels, and forms them where they lie.
#pragma once

#include "cuda/conv/mma.cuh"
#include "cuda/conv/operand.cuh"
#include "cuda/conv/pixel_product.cuh"
#include "cuda/conv_wgrad.h"

namespace fusedres::cuda {

constexpr int kWgradThreads = 128;  // 2 x 2 warps
constexpr int kWgradPixels = 32;    // a stage

// The chunk of a row that a thread copies and forms, in each of kRows rows of a stage.
template <typename Tile>
struct ThreadChunks {
  static constexpr int kRowsAPass = kWgradThreads / Tile::kChunks;
  static constexpr int kRows = kWgradPixels / kRowsAPass;
  static_assert(kWgradThreads % Tile::kChunks == 0 && kWgradPixels % kRowsAPass == 0);
  static_assert(kRowsAPass % 8 == 0, "all rows of a thread have the same swizzle");
  int chunk = threadIdx.x % Tile::kChunks, first_row = threadIdx.x / Tile::kChunks;
  uint32_t first_place = Tile::at(first_row, chunk);

  __device__ int row(int i) const { return first_row + i * kRowsAPass; }
  __device__ uint32_t at(int i) const { return first_place + i * kRowsAPass * 128; }
};

// Addresses are formed for rows past the end as well; what is not valid is not read.
__device__ __forceinline__ const char* address(const void* base, int64_t bytes) {
  return static_cast<const char*>(base) + bytes;
}

// dz and y: rows of K channels, one an output pixel.
template <typename Traits>
struct GradientRows {
  using T = typename Traits::T;
  using Tile = typename Traits::LeftTile;
  using Chunks = ThreadChunks<Tile>;
  Chunks chunks;
  int64_t offset, pass_bytes;  // of the thread's first row in the stage that is loaded next
  bool inside;

  __device__ GradientRows(const ConvWgradParams& p, int first, int group, int first_pixel) {
    const int output = first + chunks.chunk * kPerChunk<T>;
    inside = output < p.group_outputs;
    const int64_t row_bytes = int64_t{p.outputs} * static_cast<int>(sizeof(T));
    offset = (first_pixel + chunks.first_row) * row_bytes +
             (group * p.group_outputs + output) * static_cast<int>(sizeof(T));
    pass_bytes = Chunks::kRowsAPass * row_bytes;
  }

  __device__ void load(const ConvWgradParams& p, int i, int first_pixel, int end, unsigned char* tile) {
    const bool valid = inside && first_pixel + chunks.row(i) < end;
    cp_async(shared_address(tile + chunks.at(i)), address(p.dz, offset), valid);
    if constexpr (Traits::kFormed) {  // an absent y is zeros
      cp_async(
          shared_address(tile + Tile::kBytes + chunks.at(i)), address(p.y, offset), valid && p.y != nullptr);
    }
    offset += pass_bytes;
  }

  // Rows [i, last) in place; pixels past the end stay zero.
  __device__ void form(
      int i, int last, int first_pixel, int end, unsigned char* tile, const float* vectors) const {
    using Vector = ChunkVector<T, Traits::kM>;
    const Values<T> p = Vector::get(vectors, chunks.chunk);
    const Values<T> q = Vector::get(vectors + Traits::kM, chunks.chunk);
    const Values<T> r = Vector::get(vectors + 2 * Traits::kM, chunks.chunk);
#pragma unroll
    for (; i < last; ++i) {
      uint4* const place = reinterpret_cast<uint4*>(tile + chunks.at(i));
      const uint4 saved = *reinterpret_cast<const uint4*>(tile + Tile::kBytes + chunks.at(i));
      const uint4 gradient = output_gradient<T>(*place, saved, p, q, r);
      *place = keep_or_zero(gradient, first_pixel + chunks.row(i) < end);
    }
  }
};

// x: rows of C channels, one an input pixel; a thread's chunk of columns belongs to one tap.
template <typename Traits>
struct InputRows {
  using T = typename Traits::T;
  using Tile = typename Traits::RightTile;
  using Chunks = ThreadChunks<Tile>;
  Chunks chunks;
  int64_t offset, row_bytes;              // with kSamePixels, of the row that is loaded next; else of pixel 0
  int row_offset = 0, column_offset = 0;  // of the tap
  bool inside;

  __device__ InputRows(const ConvWgradParams& p, int first, int group, int first_pixel) {
    const int column = first + chunks.chunk * kPerChunk<T>;
    inside = column < p.columns;
    row_bytes = int64_t{p.channels} * static_cast<int>(sizeof(T));
    int channel = column;
    if constexpr (!Traits::kSamePixels) {
      const int tap = column / p.group_channels;
      channel = column - tap * p.group_channels;
      row_offset = tap / p.taps_w * p.dilation_h - p.padding_h;
      column_offset = tap % p.taps_w * p.dilation_w - p.padding_w;
    }
    offset = (group * p.group_channels + channel) * static_cast<int64_t>(sizeof(T));
    if constexpr (Traits::kSamePixels) offset += (first_pixel + chunks.first_row) * row_bytes;
  }

  // Whether the row holds a pixel, not padding.
  __device__ bool load(const ConvWgradParams& p, int i, int first_pixel, int end, unsigned char* tile) {
    const int pixel = first_pixel + chunks.row(i);
    bool valid = inside && pixel < end;
    int64_t source = offset;
    if constexpr (Traits::kSamePixels) {
      offset += Chunks::kRowsAPass * row_bytes;
    } else {
      uint32_t within, q;
      const uint32_t n = p.out_pixels.divide(static_cast<uint32_t>(pixel), within);
      const int row = static_cast<int>(p.out_width.divide(within, q)) * p.stride_h + row_offset;
      const int column = static_cast<int>(q) * p.stride_w + column_offset;
      valid = valid && static_cast<uint32_t>(row) < static_cast<uint32_t>(p.height) &&
              static_cast<uint32_t>(column) < static_cast<uint32_t>(p.width);
      source += ((static_cast<int>(n) * p.height + row) * p.width + column) * row_bytes;
    }
    cp_async(shared_address(tile + chunks.at(i)), address(p.x, source), valid);
    return valid;
  }

  // Rows [i, last) in place; padding, a 0 bit in `valid`, stays zero.
  __device__ void form(int i, int last, uint32_t valid, unsigned char* tile, const float* vectors) const {
    using Vector = ChunkVector<T, Traits::kN>;
    const Values<T> s = Vector::get(vectors, chunks.chunk);
    const Values<T> t = Vector::get(vectors + Traits::kN, chunks.chunk);
#pragma unroll
    for (; i < last; ++i) {
      uint4* const place = reinterpret_cast<uint4*>(tile + chunks.at(i));
      *place = keep_or_zero(activated<T>(*place, s, t), valid >> i & 1);
    }
  }
};

}  // namespace fusedres::cuda
