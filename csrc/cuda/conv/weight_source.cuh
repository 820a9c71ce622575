// The right operand: rows are result channels, a stage holds some source channels of one tap.
#pragma once

#include "cuda/conv/chunk.cuh"
#include "cuda/conv/mma.cuh"
#include "cuda/conv/result.cuh"
#include "cuda/conv/swizzle.cuh"
#include "cuda/conv/tile.cuh"

namespace fusedres::cuda {

template <typename T, typename Tile>
struct WeightSource {
  static constexpr int kChunks = Tile::kDepthBytes / kChunkBytes;
  static constexpr int kRowsAtOnce =
      Tile::kThreads / kChunks < Tile::kN ? Tile::kThreads / kChunks : Tile::kN;
  static constexpr int kPieces = Tile::kN / kRowsAtOnce;
  static constexpr int kBytes = Tile::kN * Tile::kDepthBytes;
  using Layout = Swizzle<kChunks>;
  static_assert(Tile::kN % kRowsAtOnce == 0);

  const ConvParams& p;
  const int row = threadIdx.x / kChunks;
  const int chunk = threadIdx.x % kChunks;
  const T* from;  // the thread's chunk in its first row, at tap 0
  int rows;       // of the operand that exist, from the thread's first one on

  __device__ WeightSource(const ConvParams& p, const TilePlace& place)
      : p(p), rows(p.columns - place.first_column - row) {
    const int64_t column = static_cast<int64_t>(place.group) * p.columns + place.first_column + row;
    from = static_cast<const T*>(p.weight) + column * p.taps * p.weight_depth + chunk * kPerChunk<T>;
  }

  // Issues one of kPieces copies: the channels from `channel` on of a tap.
  __device__ void copy(int piece, int tap, int channel, uint32_t stage, bool wanted) const {
    if (kRowsAtOnce * kChunks < Tile::kThreads && row >= kRowsAtOnce) return;
    const int i = piece * kRowsAtOnce;
    const bool valid = wanted && i < rows && channel + chunk * kPerChunk<T> < p.weight_depth;
    const int64_t at = (static_cast<int64_t>(i) * p.taps + tap) * p.weight_depth + channel;
    cp_async<16>(stage + Layout::at(row + i, chunk), from + at, valid);
  }
};

}  // namespace fusedres::cuda
