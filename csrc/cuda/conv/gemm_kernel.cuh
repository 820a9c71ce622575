// Convolution as an implicit GEMM: multi-stage copies, matrix instructions, an epilogue through shared
// memory.
#pragma once

#include "cuda/conv/epilogue.cuh"
#include "cuda/conv/fragments.cuh"
#include "cuda/conv/row_source.cuh"

namespace fusedres::cuda {

template <
    typename T_, typename Tile_, Walk kWalk, typename Prologue_,
    template <typename, typename> typename Epilogue_, template <typename, typename> typename Weights_>
struct GemmTraits {
  using T = T_;
  using Tile = Tile_;
  using Prologue = Prologue_;
  using Left = RowSource<T, Tile, kWalk, Prologue>;
  using Right = Weights_<T, Tile>;
  using Epilogue = Epilogue_<T, Tile>;
  static constexpr int kDepth = Tile::kDepthBytes / static_cast<int>(sizeof(T));
  static constexpr int kStageBytes = Left::kBytes + Right::kBytes;
  static constexpr int kPipelineBytes = Tile::kStages * kStageBytes;
  static constexpr int kSharedBytes =
      kPipelineBytes > Staging<Tile>::kBytes ? kPipelineBytes : Staging<Tile>::kBytes;
  // Copies of a stage, spread over the rows of products of the stage before.
  static constexpr int kPieces = Left::kPieces + Right::kPieces;
  static constexpr int kSlots = Tile::kSteps * Tile::kMmasM;
  static constexpr int kPiecesPerSlot = (kPieces + kSlots - 1) / kSlots;

  template <typename U, typename V>
  using EpilogueOf = Epilogue_<U, V>;
};

// A range of the reduction's steps: all of them, or one of p.splits parts.
struct ReductionRange {
  int first, last;

  __device__ ReductionRange(int steps, int splits) {
    const int part = (steps + splits - 1) / splits;
    first = min(steps, static_cast<int>(blockIdx.z) * part);
    last = min(steps, first + part);
  }
};

// The reduction over `range` into `sums`. Stages form a ring in shared memory; kStages - 1 of them are under
// way.
template <typename Traits>
__device__ __forceinline__ void gemm_mainloop(
    const ConvParams& p, const PixelClass& c, const TilePlace& place, const ReductionRange& range,
    int steps_a_tap, char* shared, Accumulators<typename Traits::Tile>& sums) {
  using T = typename Traits::T;
  using Tile = typename Traits::Tile;
  using Left = typename Traits::Left;
  using Right = typename Traits::Right;
  constexpr int kStages = Tile::kStages;
  constexpr int kNothing = 1 << 30;  // a channel beyond all: copies zeros, of a stage that there is not

  ReductionStep ahead(c, range.first, steps_a_tap, Traits::kDepth);
  Left left(p, c, place, ahead);
  const int first_tap = c.weight_first + ahead.tap_h * c.weight_step_h + ahead.tap_w * c.weight_step_w;
  Right right(p, place, first_tap, ahead.channel);
  const uint32_t base = shared_address(shared);
  [[maybe_unused]] int forming = ahead.channel;

  const auto copy = [&](int piece, uint32_t stage, int channel) {
    if (piece < Left::kPieces) {
      left.copy(piece, channel, stage);
    } else if (piece < Traits::kPieces) {
      right.copy(piece - Left::kPieces, channel, stage + Left::kBytes);
    }
  };
  const auto advance = [&] {
    const bool new_tap = ahead.advance(p, c, Traits::kDepth);
    left.advance(ahead, new_tap);
    auto by = Right::values_of(p, Traits::kDepth);
    if (new_tap) {
      int taps = c.weight_step_w;
      if (ahead.tap_w == 0) taps += c.weight_step_h - c.taps_w * c.weight_step_w;
      by += taps * p.weight_depth - steps_a_tap * by;
    }
    right.advance(by);
  };
#pragma unroll
  for (int stage = 0; stage < kStages - 1; ++stage) {
#pragma unroll
    for (int piece = 0; piece < Traits::kPieces; ++piece) {
      copy(
          piece, base + stage * Traits::kStageBytes,
          range.first + stage < range.last ? ahead.channel : kNothing);
    }
    advance();
    cp_async_commit();
  }

  const int warp = threadIdx.x / kWarpSize;
  const uint32_t left_lane =
      kept(Left::Layout::at(warp % Tile::kWarpsM * Tile::kWarpM + left_row(), left_chunk()));
  const uint32_t right_lane = kept(Left::kBytes + Right::lane_offset(warp));
  int reading = 0, writing = (kStages - 1) * Traits::kStageBytes;
  const auto next = [](int stage) {
    return stage == (kStages - 1) * Traits::kStageBytes ? 0 : stage + Traits::kStageBytes;
  };
  for (int step = range.first; step < range.last; ++step) {
    cp_async_wait<kStages - 2>();
    if constexpr (Traits::Prologue::kForms) {
      left.form(forming, shared + reading);
      forming = forming + Traits::kDepth < p.depth ? forming + Traits::kDepth : 0;
    }
    __syncthreads();  // the stage is there for all, and all have read the one that is written next
    const int channel = step + kStages - 1 < range.last ? ahead.channel : kNothing;
    const uint32_t stage = base + reading;
#pragma unroll
    for (int k = 0; k < Tile::kSteps; ++k) {
      const uint32_t flip = k * kMmaDepthBytes;  // two chunks on: their XOR with the row's mask, and no carry
      multiply_step<T, Tile>(
          sums, [&](uint32_t(&b)[4], int j) { Right::load(b, stage, right_lane, k, j); },
          [&](int i) { return stage + (left_lane ^ flip) + i * kMmaM * Tile::kDepthBytes; },
          [&](int i) {
#pragma unroll
            for (int j = 0; j < Traits::kPiecesPerSlot; ++j) {
              copy((k * Tile::kMmasM + i) * Traits::kPiecesPerSlot + j, base + writing, channel);
            }
          });
    }
    advance();
    cp_async_commit();
    reading = next(reading);
    writing = next(writing);
  }
  cp_async_wait<0>();
}

// A split's accumulators, as they are; split_kernel adds the splits and runs the epilogue.
template <typename Tile>
__device__ __forceinline__ void store_partial(
    const ConvParams& p, const TilePlace& place, const float* staged) {
  const PixelClass& c = p.pixel_class[place.pixel_class];
  const int64_t tile = (static_cast<int64_t>(blockIdx.z) * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  float4* const to = reinterpret_cast<float4*>(p.partial + tile * Tile::kM * Tile::kN);
  const int rows = min(Tile::kM, c.pixels - place.first_pixel);
  for (int i = threadIdx.x; i < rows * Tile::kN / 4; i += Tile::kThreads) {
    to[i] = reinterpret_cast<const float4*>(staged)[i];
  }
}

template <typename Traits>
__global__ void __launch_bounds__(Traits::Tile::kThreads, Traits::Tile::kMinBlocks)
    conv_gemm_kernel(const __grid_constant__ ConvParams p) {
  using Tile = typename Traits::Tile;
  extern __shared__ __align__(128) char shared[];
  const TilePlace place = TilePlace::of(p, Tile::kM, Tile::kN);
  const PixelClass& c = p.pixel_class[place.pixel_class];
  const int steps_a_tap = (p.depth + Traits::kDepth - 1) / Traits::kDepth;
  const ReductionRange range(c.taps_h * c.taps_w * steps_a_tap, p.splits);
  Accumulators<Tile> sums;
  clear<Tile>(sums);
  gemm_mainloop<Traits>(p, c, place, range, steps_a_tap, shared, sums);
  __syncthreads();  // the last stage has been read: its memory takes the results

  float* const staged = reinterpret_cast<float*>(shared);
  const int warp = threadIdx.x / kWarpSize;
  Staging<Tile>::write(
      staged, sums, warp % Tile::kWarpsM * Tile::kWarpM, warp / Tile::kWarpsM * Tile::kWarpN);
  __syncthreads();
  if (p.splits > 1) {
    store_partial<Tile>(p, place, staged);
  } else {
    store_tile<typename Traits::T, Tile, Traits::template EpilogueOf>(p, place, staged);
  }
}

// Adds a tile's splits in order, and runs the epilogue that their blocks left out.
template <typename T, typename Tile, template <typename, typename> typename Epilogue>
__global__ void __launch_bounds__(Tile::kThreads) conv_split_kernel(const __grid_constant__ ConvParams p) {
  extern __shared__ __align__(128) char shared[];
  const TilePlace place = TilePlace::of(p, Tile::kM, Tile::kN);
  const int rows = min(Tile::kM, p.pixel_class[place.pixel_class].pixels - place.first_pixel);
  const int64_t tile = static_cast<int64_t>(blockIdx.y) * gridDim.x + blockIdx.x;
  const int64_t quads = Tile::kM * Tile::kN / 4;
  const int64_t split = static_cast<int64_t>(gridDim.y) * gridDim.x * quads;
  const float4* const from = reinterpret_cast<const float4*>(p.partial) + tile * quads;
  float4* const staged = reinterpret_cast<float4*>(shared);
  for (int i = threadIdx.x; i < rows * Tile::kN / 4; i += Tile::kThreads) {
    float4 sum = from[i];
    for (int s = 1; s < p.splits; ++s) {
      const float4 more = from[s * split + i];
      sum = {sum.x + more.x, sum.y + more.y, sum.z + more.z, sum.w + more.w};
    }
    staged[i] = sum;
  }
  __syncthreads();
  store_tile<T, Tile, Epilogue>(p, place, reinterpret_cast<float*>(shared));
}

}  // namespace fusedres::cuda
