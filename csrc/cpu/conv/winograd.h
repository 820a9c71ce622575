// Winograd's F(m x m, 3x3) (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks",
// 2016). With m = 2 each 4 x 4 patch of the input gives 2 x 2 outputs through 16 products a channel pair
// instead of 36, and the rounding error is below direct convolution's: a sum has C terms where the direct one
// has 9 C. m = 4 (winograd_f4.h) has fewer products and rounds more.
// In bf16 both transforms, U and V, are rounded to bf16; products and sums are fp32's.
#pragma once

#include "cpu/conv/packed.h"
#include "cpu/conv/shape.h"
#include "cpu/conv/tile.h"

namespace fusedres::conv {

// The transforms of one instruction set, of maps of one element type.
struct WinogradTransforms {
  // V = B' d B of one patch, `channels` of them. patch[i * (m + 2) + j]: pixel (i, j)'s channels (zeros
  // outside the image). Point q of the patch goes to v + q * point (bytes), rounded up to whole vectors
  // of 16.
  void (*input)(const char* const* patch, int64_t channels, char* v, int64_t point);
  // Y = A' M A of one patch for one panel, then the epilogue. m: point q at m + q * point, 32 floats.
  // out[i * m + j] and residual[...]: null where the output has no such pixel (or no residual). `rounds`:
  // fp32 to bf16's values.
  void (*output)(
      const float* m, int64_t point, char* const* out, const char* const* residual, const float* scale,
      const float* shift, float floor, bool rounds, int64_t channels);
  int64_t outputs = 2;  // m

  int64_t side() const { return outputs + 2; }
  int64_t points() const { return side() * side(); }
};

// Of every m here.
constexpr int64_t kMostWinogradPoints = 36, kMostWinogradOutputs = 16;

extern const WinogradTransforms kWinogradPortable, kWinogradF4Portable;
extern const WinogradTransforms kWinogradAvx2, kWinogradF4Avx2;
extern const WinogradTransforms kWinogradAvx512, kWinogradF4Avx512, kWinogradBf16Avx512;

struct WinogradConv {
  const TileFamily* tiles = nullptr;  // whose outputs are fp32
  const WinogradTransforms* transforms = nullptr;
  const void* packed = nullptr;
  Map in;  // without a border
  Map out;
  Map residual;
  Epilogue epilogue;
  // From plan(): whether the threads share out panels (few patches, many weights) or patches, how many
  // patches are in flight at once, and whether these go through all panels point by point.
  bool split_panels = false, point_by_point = false;
  int64_t block = 0;
  int64_t threads = 1;
  uint64_t serial = 0;  // of this plan; no other has it
  char* scratch = nullptr;
  Watcher watcher;

  // Choose for so many threads; needs packed, in and out.
  void plan(int64_t for_threads);
  int64_t scratch_bytes() const;
  // Phases run one after the other, the chunks of each at once. One phase unless the panels are split.
  int64_t phases() const { return split_panels ? 2 : 1; }
  int64_t chunks() const;
  // `thread` has the scratch memory; it does one chunk at a time.
  void run(int64_t phase, int64_t chunk, int64_t thread) const;

 private:
  struct Groups;
  struct Layout;
  int64_t patch_count() const;
  int64_t panels_at_once() const;
  // Output pixels before a line of patches.
  int64_t pixels_before(int64_t line) const;
  int64_t element() const;  // bytes of a value of the maps and V
  // The addresses of a patch's pixels; of those outside the input, `zeros`.
  void read_patch(int64_t patch, const char* zeros, const char** values) const;
  // V of these channels of the patches of some groups; patch 0 of the groups is patch `base`.
  void transform_inputs(
      const Layout& layout, const Groups& groups, Range of_groups, Range channels, int64_t base, char* own,
      char* v) const;
  void multiply(
      const Layout& layout, const Groups& groups, Range of_groups, int64_t panel, int64_t point,
      const char* v, float* m) const;
  // Of patches whose products m holds from patch `base` on.
  void transform_outputs(
      const Layout& layout, int64_t panel, Range patches, int64_t base, const float* m) const;
  // Every product of the patches of some groups, and their outputs.
  void multiply_groups(
      const Layout& layout, const Groups& groups, Range of_groups, Range panels, int64_t base, const char* v,
      float* m) const;
  void run_patches(const Layout& layout, int64_t chunk, int64_t thread, char* own, char* v, float* m) const;
  void run_panels(const Layout& layout, int64_t phase, int64_t chunk, char* own, char* v, float* m) const;
};

}  // namespace fusedres::conv
