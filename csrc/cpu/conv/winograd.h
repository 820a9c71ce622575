// Winograd's F(2x2, 3x3) in fp32 (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016):
// each 4 x 4 patch of the input gives 2 x 2 outputs through 16 products a channel pair instead of 36.
// Its rounding error is below direct convolution's: a sum has C terms where the direct one has 9 C.
#pragma once

#include "cpu/conv/packed.h"
#include "cpu/conv/shape.h"
#include "cpu/conv/tile.h"

namespace fusedres::conv {

// The transforms of one instruction set.
struct WinogradTransforms {
  // V = B' d B of one patch, `channels` of them. patch[i * 4 + j]: pixel (i, j)'s channels (zeros outside the
  // image). Point q of the patch goes to v + q * point, rounded up to whole vectors of 16 floats.
  void (*input)(const float* const patch[16], int64_t channels, float* v, int64_t point);
  // Y = A' m A of one patch for one panel, then the epilogue. m: point q at m + q * point, 32 floats.
  // out[i * 2 + j] and residual[...]: null where the output has no such pixel (or no residual).
  void (*output)(
      const float* m, int64_t point, float* const out[4], const float* const residual[4], const float* scale,
      const float* shift, float floor, int64_t channels);
};

extern const WinogradTransforms kWinogradAvx512;

struct WinogradConv {
  const TileFamily* tiles = nullptr;  // fp32
  const WinogradTransforms* transforms = nullptr;
  const void* packed = nullptr;
  Map in;  // without a border
  Map out;
  Map residual;
  Epilogue epilogue;
  // From plan(): whether the threads share out panels (few patches, many weights) or patches, and how many
  // patches are in flight at once.
  bool split_panels = false;
  int64_t block = 0;
  int64_t threads = 1;
  char* scratch = nullptr;
  Watcher watcher;

  // Choose for `parts` threads; needs packed, in and out.
  void plan(int64_t for_threads);
  int64_t scratch_bytes() const;
  // Phases run one after the other, the chunks of each at once. One phase unless the panels are split.
  int64_t phases() const { return split_panels ? 2 : 1; }
  int64_t chunks(int64_t phase) const;
  // `thread` has the scratch memory; it does one chunk at a time.
  void run(int64_t phase, int64_t chunk, int64_t thread) const;

 private:
  struct Layout;
  int64_t patch_count() const;
  // Output pixels before a line of patches.
  int64_t pixels_before(int64_t line) const;
  void transform_inputs(
      const Layout& layout, Range patches, int64_t base, const float* zeros, float* v) const;
  void multiply_panel(const Layout& layout, int64_t panel, Range patches, const float* v, float* m) const;
};

}  // namespace fusedres::conv
