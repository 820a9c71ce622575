// The left operand of an implicit GEMM: rows are result pixels, and a stage holds some channels of one tap.
#pragma once

#include "cuda/conv/mma.cuh"
#include "cuda/conv/prologue.cuh"
#include "cuda/conv/result.cuh"
#include "cuda/conv/swizzle.cuh"
#include "cuda/conv/tile.cuh"

namespace fusedres::cuda {

// How the reduction is walked: a single tap needs no im2col arithmetic, its pixels are found once. Gathered
// goes value by value, where channels do not come in whole aligned chunks.
enum class Walk { kPointwise, kTaps, kGathered };

// Where in the reduction a stage lies: taps outside, channels inside.
struct ReductionStep {
  int tap_h, tap_w, channel;

  template <typename Tile, typename T>
  static constexpr int kDepth = Tile::kDepthBytes / static_cast<int>(sizeof(T));

  // The step of this number; `steps` of them are one tap.
  __device__ ReductionStep(const PixelClass& c, int number, int steps, int depth) {
    const int tap = number / steps;
    tap_h = tap / max(1, c.taps_w);
    tap_w = tap - tap_h * c.taps_w;
    channel = (number - tap * steps) * depth;
  }

  __device__ void advance(const ConvParams& p, const PixelClass& c, int depth) {
    channel += depth;
    if (channel < p.depth) return;
    channel = 0;
    if (++tap_w < c.taps_w) return;
    tap_w = 0;
    ++tap_h;
  }
};

// Copies a tile's rows stage by stage. Each thread copies the same chunk of every kRowsAtOnce-th row.
template <typename T, typename Tile, Walk kWalk, typename Prologue>
struct RowSource {
  static constexpr int kChunks = Tile::kDepthBytes / kChunkBytes;
  static constexpr int kRowsAtOnce = Tile::kThreads / kChunks;
  static constexpr int kPasses = Tile::kM / kRowsAtOnce;
  static constexpr int kPieces = kPasses * Prologue::kSources;  // copies a thread makes for a stage
  static constexpr int kTileBytes = Tile::kM * Tile::kDepthBytes;
  static constexpr int kBytes = kTileBytes * Prologue::kSources;  // of a stage
  static constexpr bool kWhole = kWalk != Walk::kGathered;
  using Layout = Swizzle<kChunks>;
  static_assert(Tile::kM % kRowsAtOnce == 0);

  const ConvParams& p;
  const PixelClass& c;
  const int row = threadIdx.x / kChunks;
  const int chunk = threadIdx.x % kChunks;
  int64_t at[kPasses];  // element offset of a row's pixel at tap (0, 0), channel 0 of the thread's chunk
  int h[kPasses], w[kPasses];

  __device__ RowSource(const ConvParams& p, const PixelClass& c, const TilePlace& place) : p(p), c(c) {
#pragma unroll
    for (int i = 0; i < kPasses; ++i) {
      const int pixel = place.first_pixel + row + i * kRowsAtOnce;
      uint32_t in_image, column;
      const uint32_t image = c.by_image.divide(pixel, in_image);
      const uint32_t line = c.by_columns.divide(in_image, column);
      constexpr int kNowhere = -(1 << 30);  // farther from the source than any tap reaches
      h[i] = pixel < c.pixels ? static_cast<int>(line) * p.source_step_h + c.source_first_h : kNowhere;
      w[i] = static_cast<int>(column) * p.source_step_w + c.source_first_w;
      const int64_t place_of = (image * static_cast<int64_t>(p.source_h) + h[i]) * p.source_w + w[i];
      at[i] = place_of * p.source_channels + place.group * p.depth + chunk * kPerChunk<T>;
      if constexpr (kWalk == Walk::kPointwise) h[i] = inside(h[i], w[i]);
    }
  }

  __device__ bool inside(int line, int column) const {
    return static_cast<unsigned>(line) < static_cast<unsigned>(p.source_h) &&
           static_cast<unsigned>(column) < static_cast<unsigned>(p.source_w);
  }

  // Whether row i has a pixel at the step's tap.
  __device__ bool present(int i, const ReductionStep& step) const {
    if constexpr (kWalk == Walk::kPointwise) return h[i];
    return inside(h[i] + step.tap_h * c.tap_step_h, w[i] + step.tap_w * c.tap_step_w);
  }

  // Issues one of kPieces copies for a stage at `stage`; `wanted` is false where there is no such stage.
  __device__ void copy(int piece, const ReductionStep& step, uint32_t stage, bool wanted) const {
    const int i = piece % kPasses, source = piece / kPasses;
    const void* const base = source == 0 ? p.source : p.prologue.other;
    const int left = p.depth - step.channel - chunk * kPerChunk<T>;
    const bool valid = wanted && left > 0 && base != nullptr && present(i, step);
    int64_t from = at[i] + step.channel;
    if constexpr (kWalk != Walk::kPointwise) {
      const int64_t pixels =
          static_cast<int64_t>(step.tap_h * c.tap_step_h) * p.source_w + step.tap_w * c.tap_step_w;
      from += pixels * p.source_channels;
    }
    const uint32_t to = stage + source * kTileBytes + Layout::at(row + i * kRowsAtOnce, chunk);
    const T* const address = static_cast<const T*>(base) + from;
    if constexpr (kWhole) {
      cp_async<16>(to, address, valid);
    } else {
      const uint4 gathered = gather_chunk(address, valid ? left : 0);
      asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(gathered.x), "r"(gathered.y),
                   "r"(gathered.z), "r"(gathered.w)
                   : "memory");
    }
  }

  // Forms the chunks that this thread copied for a stage that has arrived.
  __device__ void form(const ReductionStep& step, const TilePlace& place, char* stage) const {
    if constexpr (Prologue::kForms) {
      const int channel = step.channel + chunk * kPerChunk<T>;
      const int left = p.depth - channel;
      if (left <= 0) return;
      const typename Prologue::template Coefficients<T, kWhole> form(
          p.prologue, place.group * p.depth + channel, left);
#pragma unroll
      for (int i = 0; i < kPasses; ++i) {
        if (!present(i, step)) continue;
        uint4* const mine = reinterpret_cast<uint4*>(stage + Layout::at(row + i * kRowsAtOnce, chunk));
        uint4 other{};
        if constexpr (Prologue::kSources == 2) {
          other = *reinterpret_cast<const uint4*>(reinterpret_cast<const char*>(mine) + kTileBytes);
        }
        *mine = form(*mine, other);
      }
    }
  }
};

}  // namespace fusedres::cuda
