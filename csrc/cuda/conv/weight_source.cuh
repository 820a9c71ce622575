// The right operand: rows are result channels, a stage holds some source channels of one tap.
#pragma once

#include "cuda/conv/chunk.cuh"
#include "cuda/conv/mma.cuh"
#include "cuda/conv/result.cuh"
#include "cuda/conv/swizzle.cuh"
#include "cuda/conv/tile.cuh"

namespace fusedres::cuda {

template <typename T, typename Tile>
class WeightSource {
 public:
  static constexpr int kChunks = Tile::kDepthBytes / kChunkBytes;
  static constexpr int kAllRows = Tile::kThreads / kChunks;
  static constexpr int kRowsAtOnce = kAllRows < Tile::kN ? kAllRows : Tile::kN;
  static constexpr int kPieces = Tile::kN / kRowsAtOnce;
  static constexpr int kBytes = Tile::kN * Tile::kDepthBytes;
  using Layout = Swizzle<kChunks>;
  static_assert(Tile::kN % kRowsAtOnce == 0);

  // `tap` and `channel` are those of the first stage.
  __device__ WeightSource(const ConvParams& p, const TilePlace& place, int tap, int channel) {
    const int row = threadIdx.x / kChunks, mine = threadIdx.x % kChunks * kPerChunk<T>;
    const int64_t row_values = static_cast<int64_t>(p.taps) * p.weight_depth;
    const int64_t column = static_cast<int64_t>(place.group) * p.columns + place.first_column + row;
    from_ = static_cast<const T*>(p.weight) + column * row_values + tap * p.weight_depth + channel + mine;
    pass_ = kRowsAtOnce * row_values;
    destination_ = kept(Layout::at(row, threadIdx.x % kChunks));
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      const bool exists = row < kRowsAtOnce && place.first_column + row + i * kRowsAtOnce < p.columns;
      below_[i] = exists ? p.weight_depth - mine : 0;
    }
  }

  // Issues one of kPieces copies, of the channels from `channel` on.
  __device__ void copy(int piece, int channel, uint32_t stage) const {
    if (kRowsAtOnce < kAllRows && threadIdx.x >= kRowsAtOnce * kChunks) return;
    const uint32_t to = stage + destination_ + piece * kRowsAtOnce * Tile::kDepthBytes;
    cp_async<16>(to, from_ + piece * pass_, channel < below_[piece]);
  }

  // On by so many values of a weight row: taps lie behind each other in it.
  __device__ void advance(int values) { from_ += values; }

 private:
  const T* from_;
  int64_t pass_;
  int below_[kPieces];  // the channels that a piece may begin at
  uint32_t destination_;
};

}  // namespace fusedres::cuda
