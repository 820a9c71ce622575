// The right operand, from weights that lie a row a source channel, each of taps and then result channels: a
// gradient reads the forward convolution's own weights, which nothing has to turn around before.
#pragma once

#include "cuda/conv/chunk.cuh"
#include "cuda/conv/mma.cuh"
#include "cuda/conv/result.cuh"
#include "cuda/conv/swizzle.cuh"
#include "cuda/conv/tile.cuh"

namespace fusedres::cuda {

// A stage has a row of kN result channels for each of its source channels, and ldmatrix turns its 8 x 8
// matrices: 16-bit values only.
template <typename T, typename Tile>
class TurnedWeightSource {
 public:
  static constexpr int kDepth = Tile::kDepthBytes / static_cast<int>(sizeof(T));
  static constexpr int kRowBytes = Tile::kN * static_cast<int>(sizeof(T));
  static constexpr int kChunks = kRowBytes / kChunkBytes;
  static constexpr int kRowsAtOnce = Tile::kThreads / kChunks;
  static constexpr int kPieces = kDepth / kRowsAtOnce;
  static constexpr int kBytes = kDepth * kRowBytes;
  static_assert(sizeof(T) == 2 && kDepth % kRowsAtOnce == 0 && kRowsAtOnce % 8 == 0);

  // Eight rows of a chunk, which ldmatrix reads together, lie in different columns of the 128-byte bank line;
  // rows of 256 bytes are two such lines.
  __device__ static uint32_t at(int row, int chunk) {
    using Line = Swizzle<(kChunks < 8 ? kChunks : 8)>;
    return static_cast<uint32_t>(row * kRowBytes + ((chunk ^ Line::mask(row)) * kChunkBytes));
  }

  // `tap` and `channel` are those of the first stage.
  __device__ TurnedWeightSource(const ConvParams& p, const TilePlace& place, int tap, int channel) {
    const int row = threadIdx.x / kChunks, chunk = threadIdx.x % kChunks;
    const int column = place.first_column + chunk * kPerChunk<T>;
    const int64_t from = static_cast<int64_t>(place.group) * p.depth + channel + row;
    from_ = static_cast<const T*>(p.weight) + (from * p.taps + tap) * p.weight_depth + column;
    pass_ = values_of(p, kRowsAtOnce);
    below_ = column < p.columns ? p.depth - row : 0;
    destination_ = kept(at(row, chunk));
  }

  // Issues one of kPieces copies, of the channels from `channel` on.
  __device__ void copy(int piece, int channel, uint32_t stage) const {
    const uint32_t to = stage + destination_ + piece * kRowsAtOnce * kRowBytes;
    cp_async<16>(to, from_ + piece * pass_, channel + piece * kRowsAtOnce < below_);
  }

  // On by so many values: taps lie behind each other in a row, and source channels a row apart.
  __device__ void advance(int64_t values) { from_ += values; }
  __device__ static int64_t values_of(const ConvParams& p, int source_channels) {
    return static_cast<int64_t>(source_channels) * (p.taps * p.weight_depth);
  }

  // Where a lane of a warp reads fragments in a stage, and the j-th two of the k-th step: a warp's columns
  // are whole fours of chunks, so that two chunks on are their XOR.
  __device__ static uint32_t lane_offset(int warp) {
    static_assert(Tile::kWarpN == 32);
    const int matrix = threadIdx.x % kWarpSize / 8;
    const int first_chunk = warp / Tile::kWarpsM * Tile::kWarpN / kPerChunk<T>;
    return at(matrix % 2 * 8 + threadIdx.x % 8, first_chunk + matrix / 2);
  }
  __device__ static void load(uint32_t (&fragment)[4], uint32_t stage, uint32_t lane, int k, int j) {
    constexpr int kMmaRows = kMmaDepthBytes / static_cast<int>(sizeof(T));
    ldmatrix_x4_trans(fragment, stage + (lane ^ (j * 2 * kChunkBytes)) + k * kMmaRows * kRowBytes);
  }

 private:
  const T* from_;
  int64_t pass_;
  int below_;  // the channels that a stage may begin at
  uint32_t destination_;
};

}  // namespace fusedres::cuda
