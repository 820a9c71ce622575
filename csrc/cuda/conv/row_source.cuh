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

// Where in the reduction a stage lies: taps outside, channels inside. The same for all threads.
struct ReductionStep {
  int tap_h, tap_w, channel;

  // Step `number`, of which `steps` are one tap and `depth` channels one step.
  __device__ ReductionStep(const PixelClass& c, int number, int steps, int depth) {
    const int tap = number / steps;
    tap_h = tap / max(1, c.taps_w);
    tap_w = tap - tap_h * c.taps_w;
    channel = (number - tap * steps) * depth;
  }

  // To the next step; whether that is another tap.
  __device__ bool advance(const ConvParams& p, const PixelClass& c, int depth) {
    channel += depth;
    if (channel < p.depth) return false;
    channel = 0;
    if (++tap_w == c.taps_w) {
      tap_w = 0;
      ++tap_h;
    }
    return true;
  }
};

// Copies a tile's rows stage by stage. Each thread copies the same chunk of every kRowsAtOnce-th row, and
// keeps a pointer to it that moves from stage to stage: two additions a copy.
template <typename T, typename Tile, Walk kWalk, typename Prologue>
class RowSource {
 public:
  static constexpr int kChunks = Tile::kDepthBytes / kChunkBytes;
  static constexpr int kRowsAtOnce = Tile::kThreads / kChunks;
  static constexpr int kPasses = Tile::kM / kRowsAtOnce;
  static constexpr int kPieces = kPasses * Prologue::kSources;  // copies a thread makes for a stage
  static constexpr int kTileBytes = Tile::kM * Tile::kDepthBytes;
  static constexpr int kBytes = kTileBytes * Prologue::kSources;  // of a stage
  static constexpr int kDepth = Tile::kDepthBytes / static_cast<int>(sizeof(T));
  static constexpr bool kWhole = kWalk != Walk::kGathered;
  using Layout = Swizzle<kChunks>;
  static_assert(Tile::kM % kRowsAtOnce == 0 && kPasses * Tile::kStages <= 32);

  __device__ RowSource(
      const ConvParams& p, const PixelClass& c, const TilePlace& place, const ReductionStep& step)
      : p_(p),
        c_(c),
        group_(place.group * p.depth),
        row_(threadIdx.x / kChunks),
        mine_(threadIdx.x % kChunks * kPerChunk<T>),
        destination_(kept(Layout::at(row_, threadIdx.x % kChunks))) {
#pragma unroll
    for (int i = 0; i < kPasses; ++i) {
      const int pixel = place.first_pixel + row_ + i * kRowsAtOnce;
      uint32_t in_image, column;
      const uint32_t image = c.by_image.divide(pixel, in_image);
      const uint32_t line = c.by_columns.divide(in_image, column);
      constexpr int kNowhere = -(1 << 30);  // farther from the source than any tap reaches
      h_[i] = static_cast<int>(line) * p.source_step_h + c.source_first_h;
      w_[i] = static_cast<int>(column) * p.source_step_w + c.source_first_w;
      const int64_t at =
          (image * static_cast<int64_t>(p.source_h) + h_[i]) * p.source_w + w_[i] + tap_pixels(step);
      from_[i] = static_cast<const T*>(p.source) + at * p.source_channels + group_ + step.channel + mine_;
      if (pixel >= c.pixels) h_[i] = kNowhere;
    }
    find_present(step);
    if constexpr (Prologue::kSources == 2) {
      to_other_ = static_cast<const char*>(p.prologue.other) - static_cast<const char*>(p.source);
      has_other_ = p.prologue.other != nullptr;
    }
  }

  // Issues one of kPieces copies of the channels from `channel` on.
  __device__ void copy(int piece, int channel, uint32_t stage) const {
    const int i = piece % kPasses, source = piece / kPasses;
    const bool valid = channel < below_[i] && (source == 0 || has_other_);
    const T* from = from_[i];
    if (source == 1) from = reinterpret_cast<const T*>(reinterpret_cast<const char*>(from) + to_other_);
    const uint32_t to = stage + destination_ + source * kTileBytes + i * kRowsAtOnce * Tile::kDepthBytes;
    if constexpr (kWhole) {
      cp_async<16>(to, from, valid);
    } else {
      const uint4 gathered =
          gather_chunk(from, valid ? first_of(i, channel) : 0, valid ? below_[i] - channel : 0);
      asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(gathered.x), "r"(gathered.y),
                   "r"(gathered.z), "r"(gathered.w)
                   : "memory");
    }
  }

  // After all copies of a stage: to `step`, which is another tap's where `new_tap`.
  __device__ void advance(const ReductionStep& step, bool new_tap) {
    if constexpr (Prologue::kForms) formed_ = formed_ << kPasses | present();
    int64_t by = kDepth;
    if (kWalk != Walk::kPointwise && new_tap) {
      int64_t pixels = c_.tap_step_w;
      if (step.tap_w == 0)
        pixels += static_cast<int64_t>(c_.tap_step_h) * p_.source_w - c_.taps_w * c_.tap_step_w;
      by += pixels * p_.source_channels - (p_.depth + kDepth - 1) / kDepth * kDepth;
      find_present(step);
    }
#pragma unroll
    for (int i = 0; i < kPasses; ++i) from_[i] += by;
  }

  // Forms the chunks that this thread copied for the oldest of the kStages - 1 stages under way, which has
  // arrived.
  __device__ void form(int channel, char* stage) const {
    if constexpr (Prologue::kForms) {
      const int left = p_.depth - channel - mine_;
      if (left <= 0) return;
      const typename Prologue::template Coefficients<T, kWhole> form(
          p_.prologue, group_ + channel + mine_, left);
      const uint32_t present = formed_ >> (Tile::kStages - 2) * kPasses;
#pragma unroll
      for (int i = 0; i < kPasses; ++i) {
        if (!(present >> i & 1)) continue;
        char* const mine = stage + destination_ + i * kRowsAtOnce * Tile::kDepthBytes;
        uint4 other{};
        if constexpr (Prologue::kSources == 2) other = *reinterpret_cast<const uint4*>(mine + kTileBytes);
        *reinterpret_cast<uint4*>(mine) = form(*reinterpret_cast<const uint4*>(mine), other);
      }
    }
  }

 private:
  // The first value of a piece that lies in its row of the source, where taps of a row are one; else 0.
  __device__ int first_of(int i, int channel) const {
    return p_.flat ? -w_[i] * p_.source_channels - channel - mine_ : 0;
  }

  __device__ int64_t tap_pixels(const ReductionStep& step) const {
    return static_cast<int64_t>(step.tap_h * c_.tap_step_h) * p_.source_w + step.tap_w * c_.tap_step_w;
  }

  // Where a pass's pixel at the step's tap lies outside the source, it has no channel to begin at.
  __device__ void find_present(const ReductionStep& step) {
#pragma unroll
    for (int i = 0; i < kPasses; ++i) {
      const int h = h_[i] + step.tap_h * c_.tap_step_h, w = w_[i] + step.tap_w * c_.tap_step_w;
      bool inside = static_cast<unsigned>(h) < static_cast<unsigned>(p_.source_h);
      int end = p_.depth - mine_;
      if (!kWhole && p_.flat) {
        end = min(end, (p_.source_w - w) * p_.source_channels - mine_);
      } else {
        inside = inside && static_cast<unsigned>(w) < static_cast<unsigned>(p_.source_w);
      }
      below_[i] = static_cast<int>(kept(inside ? end : kNone));
    }
  }

  // A bit a pass: whether its pixel is there.
  __device__ uint32_t present() const {
    uint32_t bits = 0;
#pragma unroll
    for (int i = 0; i < kPasses; ++i) bits |= static_cast<uint32_t>(below_[i] != kNone) << i;
    return bits;
  }

  static constexpr int kNone = -(1 << 30);

  const ConvParams& p_;
  const PixelClass& c_;
  const int group_;             // its first source channel
  const int row_, mine_;        // the thread's first row, and first channel in a stage
  const uint32_t destination_;  // of its first chunk, in a stage
  const T* from_[kPasses];
  int h_[kPasses], w_[kPasses];  // source pixel of a row at the first tap
  int below_[kPasses];           // the channels that a piece may begin at
  uint32_t formed_ = 0;          // `present` of the stages under way, newest in the lowest kPasses bits
  int64_t to_other_ = 0;
  bool has_other_ = false;
};

}  // namespace fusedres::cuda
