#include "cuda/conv/patch.h"

#include <algorithm>

namespace fusedres::cuda {
namespace {

constexpr int kFewestTaps = 4;            // as many as the ring of weights has stages, and one more
constexpr int64_t kMostPixels = 1 << 25;  // of a tile's images: the table has 25 bits for a pixel

int ceil_div(int a, int b) { return (a + b - 1) / b; }
int even(int a) { return a + a % 2; }

// Stride 1 takes every filter of 4 to 9 taps, stride 2 the 3x3 alone, whose phases have 5 and 4.
bool has_patch(const ConvParams& p) {
  const PixelClass& c = p.pixel_class[0];
  const int taps = c.taps_h * c.taps_w;
  if (p.classes != 1 || p.out_step_h * p.out_step_w != 1 || p.source_step_w != p.source_step_h) return false;
  if (c.weight_step_h != c.taps_w * c.weight_step_w || c.pixels == 0) return false;
  if (p.source_step_h == 1) return taps >= kFewestTaps && taps <= kMaxPatchTaps;
  return p.source_step_h == 2 && c.taps_h == 3 && c.taps_w == 3 && c.tap_step_h == 1 && c.tap_step_w == 1;
}

// A tile may begin with the last pixel of a row and of an image.
int images_of(const PixelClass& c, int pixels) {
  return (pixels - 2 + c.rows * c.columns) / (c.rows * c.columns) + 1;
}
int rows_of(const PixelClass& c, int pixels) { return (pixels - 2 + c.columns) / c.columns + 1; }

// Slots of a patch, from those of a row and of an image's halo. Both have the parity that lets a slot have
// its key's: the pitch that of the columns, the gap an even one.
void lay_out(PatchParams& patch, const PixelClass& c, int pixels) {
  const int halo_h = (c.taps_h - 1) * c.tap_step_h, halo_w = (c.taps_w - 1) * c.tap_step_w;
  patch.half = c.columns + ceil_div(halo_w, patch.step);
  patch.pitch = patch.half * patch.step;
  patch.pitch += (patch.pitch - c.columns) % 2;
  patch.gap = even(patch.step == 1 ? halo_h * patch.pitch : patch.half);
  const int slots = rows_of(c, pixels) * patch.pitch + images_of(c, pixels) * patch.gap;
  patch.slots = ceil_div(slots, 32) * 32;  // what follows the table starts on a line of banks
}

}  // namespace

bool plan_patch(ConvParams& p, int tile_m) {
  if (!has_patch(p)) return false;
  const PixelClass& c = p.pixel_class[0];
  const int taps = c.taps_h * c.taps_w, step = p.source_step_h, pixels = std::min(tile_m, c.pixels);
  const int64_t image = static_cast<int64_t>(p.source_h) * p.source_w;
  if (images_of(c, pixels) * image >= kMostPixels) return false;
  PatchParams& patch = p.patch;
  patch.step = step;
  lay_out(patch, c, pixels);
  int walked = 0, before = 0;
  for (int phase = 0; phase < step; ++phase) {
    for (int tap = 0; tap < taps; ++tap) {
      const int down = tap / c.taps_w * c.tap_step_h, right = tap % c.taps_w * c.tap_step_w;
      if ((down + right) % step != phase) continue;
      const int slot = down / step * patch.pitch + down % step * patch.half + right / step;
      const int key = down / step * c.columns + right / step;
      patch.tap_word[walked] = static_cast<uint32_t>(slot) + (static_cast<uint32_t>(key) << 29);
      if (walked > 0) patch.weight_jump[walked - 1] = (tap - before) * c.weight_step_w * p.weight_depth;
      before = tap;
      ++walked;
    }
    if (phase == 0) patch.first_phase_taps = walked;
  }
  patch.weight_back = -before * c.weight_step_w * p.weight_depth;
  const int fewest = std::min(patch.first_phase_taps, taps - (step - 1) * patch.first_phase_taps);
  return patch.slots <= (fewest - kPatchStages + 2) * patch_slots_per_tap(step);
}

}  // namespace fusedres::cuda
