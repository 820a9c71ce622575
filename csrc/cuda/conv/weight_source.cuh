// The right operand, from weights that lie a row a result channel: a stage holds some source channels of a
// tap.
#pragma once

#include "cuda/conv/chunk.cuh"
#include "cuda/conv/fragments.cuh"
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

  // On by so many values: taps lie behind each other in a row, and a tap's source channels do.
  __device__ void advance(int values) { from_ += values; }
  __device__ static int values_of(const ConvParams&, int source_channels) { return source_channels; }

  // Where a lane of a warp reads fragments in a stage, and the j-th two of the k-th step: two chunks on are
  // their XOR with the row's mask, and no carry.
  __device__ static uint32_t lane_offset(int warp) {
    return Layout::at(warp / Tile::kWarpsM * Tile::kWarpN + right_row(), right_chunk());
  }
  __device__ static void load(uint32_t (&fragment)[4], uint32_t stage, uint32_t lane, int k, int j) {
    load_fragment<T>(fragment, stage + (lane ^ (k * kMmaDepthBytes)) + j * 2 * kMmaN * Tile::kDepthBytes);
  }

 private:
  const T* from_;
  int64_t pass_;
  int below_[kPieces];  // the channels that a piece may begin at
  uint32_t destination_;
};

}  // namespace fusedres::cuda
