// Weight gradients in bf16 on AMX: dw[k][c][r][s] = sum over all output pixels of dy[pixel][k] * x[pixel's
// tap][c].
//
// tdpbf16ps sums over pixels, 32 at a time: it wants x as channels by pixels (A) and dy as pairs of pixels by
// filters (B). Both copies number the pixels alike, line after line, with the filter's reach between lines: a
// tap is then a shift of A's pixels. Where the stride is 2, x is copied as 2 x 2 planes, so that it is one
// there too.
//
// Threads own blocks of dw, as in wgrad.h, and share nothing.
#pragma once

#include <cstdint>
#include <vector>

#include "common/element.h"
#include "cpu/conv/shape.h"
#include "cpu/conv/wgrad.h"

namespace fusedres::conv {

constexpr int64_t kBlock = 32;  // channels, filters and pixels of one step

// sums[c][k] (+)= sum over pixels of a[c][pixel] * b[pixel][k], 32 by 32.
struct WgradBf16Tile {
  const BFloat16* a;  // channel c at a + c * a_pitch, from the tap's first pixel
  const BFloat16* b;  // [pixel / 32][k / 16][pixel / 2 % 16][k % 16][pixel % 2]
  int64_t a_pitch, pixels;
  float* sums;
  bool add;  // to what `sums` holds
};

// `pixels` null: a pixel of zeros. Their number is a multiple of 32; channels beyond `channels` (1 to 32) are
// zeros.
struct WgradBf16Kernels {
  void (*enter)();
  void (*leave)();
  void (*multiply)(const WgradBf16Tile&);
  // One block of A: 32 channels, pixel after pixel, `pitch` apart.
  void (*transpose)(
      const BFloat16* const* pixels, int64_t count, int64_t channels, Activation activation, BFloat16* to,
      int64_t pitch);
  // `count` sums rounded to bf16.
  void (*narrow)(const float* sums, int64_t count, BFloat16* to);
  // One block of B: 32 filters.
  void (*interleave)(const BFloat16* const* pixels, int64_t count, int64_t channels, BFloat16* to);
};

extern const WgradBf16Kernels kWgradBf16Amx;

class WgradBf16 {
 public:
  // x and dy: bf16, dense. dw: (K, C, R, S), dense, bf16.
  WgradBf16(
      const WgradBf16Kernels& kernels, const Filter& filter, const Map& x, const Activation& activation,
      const Map& dy, const WeightGradient<BFloat16>& dw);

  // Memory of a run by `parts` threads, aligned to 64 bytes.
  int64_t scratch_bytes(int64_t parts) const { return parts * part_bytes(parts); }
  // The share of dw of part `part` of `parts`, all of which may run at once.
  void run(int64_t part, int64_t parts, char* scratch) const;

 private:
  struct Share {
    Range filters, channels;  // blocks of 32
  };
  struct Memory;

  Share share_of(int64_t part, int64_t parts) const;
  Memory memory_of(const Share& share, char* scratch) const;
  int64_t part_bytes(int64_t parts) const;
  int64_t taps() const { return filter_.rows * filter_.cols; }

  // The pixels of one plane of x, and those of dy, in their common order; null between lines.
  void list_input(const WgradChunk& chunk, int64_t plane, std::vector<const BFloat16*>& pixels) const;
  void list_gradient(const WgradChunk& chunk, std::vector<const BFloat16*>& pixels) const;
  void copy(const WgradChunk& chunk, const Share& share, Range channels, const Memory& memory) const;
  void multiply(const WgradChunk& chunk, const Share& share, Range channels, const Memory& memory) const;
  void store(const Share& share, Range channels, const Memory& memory) const;

  const WgradBf16Kernels& kernels_;
  Filter filter_;
  Map x_, dy_;
  Activation activation_;
  WeightGradient<BFloat16> dw_;
  int64_t planes_h_, planes_w_;  // of x
  int64_t pitch_;                // pixels of a line
  WgradChunks chunks_;
  int64_t lines_;   // of an image in a chunk, the filter's reach included
  int64_t pixels_;  // of a chunk
  int64_t reach_;   // pixels from the first tap's to the last one's
};

}  // namespace fusedres::conv
