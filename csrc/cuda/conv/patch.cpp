#include "cuda/conv/patch.h"

#include <algorithm>

namespace fusedres::cuda {
namespace {

constexpr int kFewestTaps = 4;            // as many as the ring of weights has stages
constexpr int64_t kMostPixels = 1 << 25;  // of a tile's images: the table has 25 bits for a pixel

int ceil_div(int a, int b) { return (a + b - 1) / b; }

}  // namespace

bool plan_patch(ConvParams& p, int tile_m) {
  const PixelClass& c = p.pixel_class[0];
  const int taps = c.taps_h * c.taps_w, step = p.source_step_h;
  if (p.classes != 1 || p.out_step_h * p.out_step_w != 1 || p.source_step_w != step || step > 2) return false;
  if (c.weight_step_h != c.taps_w * c.weight_step_w) return false;
  if (taps < kFewestTaps || taps > kMaxPatchTaps || c.pixels == 0) return false;
  PatchParams& patch = p.patch;
  patch.step = step;
  // An even number of extra rows, and a pitch of the columns' parity: the slot then has its key's parity in
  // every image of a tile.
  patch.extra_rows = ceil_div((c.taps_h - 1) * c.tap_step_h, step);
  patch.extra_rows += patch.extra_rows % 2;
  patch.half = c.columns + ceil_div((c.taps_w - 1) * c.tap_step_w, step);
  patch.pitch = patch.half * step;
  patch.pitch += (patch.pitch - c.columns) % 2;
  const int pixels = std::min(tile_m, c.pixels), in_image = c.rows * c.columns;
  const int images = (pixels - 2 + in_image) / in_image + 1;  // a tile may begin with the last pixel of one
  const int rows = (pixels - 2 + c.columns) / c.columns + 1;
  patch.plane = (rows + images * patch.extra_rows) * patch.pitch;
  patch.slots = ceil_div(step * patch.plane, 32) * 32;  // what follows the table starts on a line of banks
  if (static_cast<int64_t>(images) * p.source_h * p.source_w >= kMostPixels) return false;
  for (int tap = 0; tap < taps; ++tap) {
    const int a = tap / c.taps_w, b = tap % c.taps_w;
    const int down = a * c.tap_step_h, right = b * c.tap_step_w;
    const int slot =
        down % step * patch.plane + down / step * patch.pitch + right % step * patch.half + right / step;
    const int key = down / step * c.columns + right / step;
    patch.tap_word[tap] = static_cast<uint32_t>(slot) + (static_cast<uint32_t>(key) << 29);
  }
  patch.weight_step = c.weight_step_w * p.weight_depth;
  return patch.slots <= (taps - kPatchStages + 2) * kPatchSlotsPerTap;
}

}  // namespace fusedres::cuda
