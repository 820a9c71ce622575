// Convolution with all taps read from a patch in shared memory: the source crosses L2 once a tile, not once a
// tap.
#pragma once

#include "cuda/conv/epilogue.cuh"
#include "cuda/conv/fragments.cuh"
#include "cuda/conv/patch_source.cuh"

namespace fusedres::cuda {

template <
    typename T_, typename Tile_, int kStep_, typename Prologue_,
    template <typename, typename> typename Epilogue_, template <typename, typename> typename Weights_>
struct PatchTraits {
  using T = T_;
  using Tile = Tile_;
  using Prologue = Prologue_;
  static constexpr int kStep = kStep_;  // stride 1 or 2
  using Left = PatchSource<T, Tile, kStep, Prologue>;
  using Right = Weights_<T, Tile>;
  static constexpr int kPatches = 1 + Prologue::kSources;  // buffers: two, and one of the second source
  // Copies of a tap, spread over its rows of products.
  static constexpr int kPieces = Right::kPieces + Left::kPiecesPerTap;
  static constexpr int kPlaces = Tile::kSteps * Tile::kMmasM;
  static constexpr int kPiecesPerPlace = (kPieces + kPlaces - 1) / kPlaces;

  template <typename U, typename V>
  using EpilogueOf = Epilogue_<U, V>;
};

// The reduction: chunks of channels outside, phases of taps, taps inside. While a phase's taps are multiplied
// the next phase's patch arrives, a few copies a tap, and weights kPatchStages - 1 taps ahead.
template <typename Traits>
__device__ __forceinline__ void patch_mainloop(
    const ConvParams& p, const PixelClass& c, const TilePlace& place, char* shared,
    Accumulators<typename Traits::Tile>& sums) {
  using Tile = typename Traits::Tile;
  using Left = typename Traits::Left;
  using Right = typename Traits::Right;
  constexpr int kStages = kPatchStages;

  Left left(p, c, place, shared);
  Right right(p, place, c.weight_first, 0);
  const uint32_t ring = left.patches() + Traits::kPatches * left.buffer_bytes();
  const int warp = threadIdx.x / kWarpSize;
  uint32_t words[Tile::kMmasM];
#pragma unroll
  for (int i = 0; i < Tile::kMmasM; ++i) {
    words[i] = left.word(
        place.first_pixel + warp % Tile::kWarpsM * Tile::kWarpM + i * kMmaM + left_row(), left_chunk());
  }
  const uint32_t right_lane = kept(Right::lane_offset(warp));
  __syncthreads();  // the table is complete

  while (!left.done()) left.copy(2 * left.buffer_bytes());
  int ahead_tap = 0, ahead_channel = 0;
  const auto advance = [&] {
    const int jump = p.patch.weight_jump[Traits::kStep == 1 ? 0 : ahead_tap];  // at stride 1 all are the same
    const bool wraps = ++ahead_tap == p.taps;
    right.advance(wraps ? Right::values_of(p, Left::kChannels) + p.patch.weight_back : jump);
    if (wraps) {
      ahead_tap = 0;
      ahead_channel += Left::kChannels;
    }
  };
#pragma unroll
  for (int stage = 0; stage < kStages - 1; ++stage) {
#pragma unroll
    for (int piece = 0; piece < Right::kPieces; ++piece) {
      right.copy(piece, ahead_channel, ring + stage * Right::kBytes);
    }
    advance();
    cp_async_commit();
  }

  uint32_t reading = ring, writing = ring + (kStages - 1) * Right::kBytes;
  const auto next = [&](uint32_t stage) {
    return stage == ring + (kStages - 1) * Right::kBytes ? ring : stage + Right::kBytes;
  };
  int channel = 0, phase = 0, buffer = 0, tap = 0;
  while (channel < p.depth) {
    const int next_phase = phase + 1 == Traits::kStep ? 0 : phase + 1;
    const int next_channel = next_phase == 0 ? channel + Left::kChannels : channel;
    const int other_buffer = left.buffer_bytes() - buffer;
    left.start(next_phase, next_channel, other_buffer);
    const int other_ahead = 2 * left.buffer_bytes() - other_buffer;
    const int first_tap = tap, end_tap = next_phase == 0 ? p.taps : p.patch.first_phase_taps;
    for (; tap < end_tap; ++tap) {
      cp_async_wait<kStages - 2>();
      if (Traits::Prologue::kForms && tap == first_tap) left.form(phase, channel, buffer);
      __syncthreads();  // weights, and at a phase's first tap the patch, are there; the stage written next
                        // has been read
      const uint32_t tap_word = p.patch.tap_word[tap], patch = left.patches() + buffer;
      uint32_t rows[Tile::kMmasM];
#pragma unroll
      for (int i = 0; i < Tile::kMmasM; ++i) rows[i] = patch + slot_address(words[i] + tap_word);
#pragma unroll
      for (int k = 0; k < Tile::kSteps; ++k) {
        const uint32_t flip = k * kMmaDepthBytes;
        multiply_step<typename Traits::T, Tile>(
            sums, [&](uint32_t(&b)[4], int j) { Right::load(b, reading, right_lane, k, j); },
            [&](int i) { return rows[i] ^ flip; },
            [&](int i) {
              const int place = k * Tile::kMmasM + i;
#pragma unroll
              for (int j = 0; j < Traits::kPiecesPerPlace; ++j) {
                const int piece = place * Traits::kPiecesPerPlace + j;
                if (piece < Right::kPieces) {
                  right.copy(piece, ahead_channel, writing);
                } else if (piece < Traits::kPieces) {
                  left.copy(other_ahead);
                }
              }
            });
      }
      advance();
      cp_async_commit();
      reading = next(reading);
      writing = next(writing);
    }
    if (next_phase == 0) tap = 0;
    buffer = other_buffer;
    phase = next_phase;
    channel = next_channel;
  }
  cp_async_wait<0>();
}

template <typename Traits>
__global__ void __launch_bounds__(Traits::Tile::kThreads, Traits::Tile::kMinBlocks)
    conv_patch_kernel(const __grid_constant__ ConvParams p) {
  using Tile = typename Traits::Tile;
  extern __shared__ __align__(128) char shared[];
  const TilePlace place = TilePlace::of(p, Tile::kM, Tile::kN);
  Accumulators<Tile> sums;
  clear<Tile>(sums);
  patch_mainloop<Traits>(p, p.pixel_class[0], place, shared, sums);
  __syncthreads();  // the last stage has been read: its memory takes the results
  float* const staged = reinterpret_cast<float*>(shared);
  const int warp = threadIdx.x / kWarpSize;
  Staging<Tile>::write(
      staged, sums, warp % Tile::kWarpsM * Tile::kWarpM, warp / Tile::kWarpsM * Tile::kWarpN);
  __syncthreads();
  store_tile<typename Traits::T, Tile, Traits::template EpilogueOf>(p, place, staged);
}

}  // namespace fusedres::cuda
