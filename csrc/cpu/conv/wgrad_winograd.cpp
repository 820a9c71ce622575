// Weight gradients by Winograd's F(2x2, 3x3). The derivative of Y = A' [(G g G') * (B' d B)] A with respect
// to g is G' [sum over patches of (A dY A') * (B' d B)] G: 16 products a patch and channel pair instead
// of 36.
#include <algorithm>

#include "cpu/conv/wgrad.h"

namespace fusedres::conv {
namespace {

constexpr int64_t kPoints = 16;
constexpr int64_t kLine = 16;  // floats

}  // namespace

// Lines are of 2 x 2 patches. V of one panel (512 KB) is in flight at a time, Z of all tiles.
struct Wgrad::WinogradLayout {
  int64_t across, down;
  WgradChunks chunks;
  Region region;
  int64_t z_point, z_tile, v_point, sums;  // floats from one to the next

  explicit WinogradLayout(const Wgrad& w)
      : across(ceil_div(w.dy_.width, 2)),
        down(ceil_div(w.dy_.height, 2)),
        chunks(down, across, w.dy_.images, w.kernels_.chunk),
        region{2 * chunks.lines + 2, 2 * across + 2, 2, 1, 1} {
    const int64_t patches = chunks.images * chunks.lines * across;
    z_point = round_up(patches * w.tile_rows_, kLine) + kLine;
    z_tile = kPoints * z_point;
    v_point = patches * kPanel + kLine;
    sums = kPoints * w.tile_rows_ * kPanel;
  }
  int64_t copied() const { return chunks.images * region.pixels() * kPanel; }
};

int64_t Wgrad::winograd_floats(const WgradShare& share) const {
  const WinogradLayout layout(*this);
  const int64_t tiles = share.tiles.end - share.tiles.begin, panels = share.panels.end - share.panels.begin;
  return layout.copied() + kPoints * layout.v_point + tiles * (layout.z_tile + panels * layout.sums);
}

void Wgrad::transform_gradients(
    const WinogradLayout& layout, const WgradChunk& chunk, Range tiles, float* z) const {
  const int64_t first = tiles.begin * tile_rows_;
  const int64_t channels = std::min(tiles.end * tile_rows_, filter_.out_channels) - first;
  for (int64_t n = chunk.images.begin; n < chunk.images.end; ++n)
    for (int64_t line = chunk.lines.begin; line < chunk.lines.end; ++line)
      for (int64_t column = 0; column < layout.across; ++column, z += tile_rows_) {
        const float* patch[4];
        for (int64_t i = 0; i < 4; ++i) {
          const int64_t y = 2 * line + i / 2, x = 2 * column + i % 2;
          const bool inside = y < dy_.height && x < dy_.width;
          patch[i] = inside ? reinterpret_cast<const float*>(dy_.at(n, y, x)) + first : nullptr;
        }
        kernels_.transform_gradient(patch, channels, tile_rows_, z, layout.z_tile, layout.z_point);
      }
}

void Wgrad::transform_inputs(
    const WinogradLayout& layout, const WgradChunk& chunk, const float* copied, float* v) const {
  const int64_t row = layout.region.width * kPanel;
  for (int64_t n = chunk.images.begin; n < chunk.images.end; ++n, copied += layout.region.pixels() * kPanel)
    for (int64_t line = 0; line < chunk.lines.end - chunk.lines.begin; ++line)
      for (int64_t column = 0; column < layout.across; ++column, v += kPanel) {
        const float* corner = copied + 2 * line * row + 2 * column * kPanel;
        const char* patch[kPoints];
        for (int64_t i = 0; i < kPoints; ++i)
          patch[i] = reinterpret_cast<const char*>(corner + i / 4 * row + i % 4 * kPanel);
        kernels_.transforms->input(patch, kPanel, reinterpret_cast<char*>(v), 4 * layout.v_point);
      }
}

void Wgrad::finish_winograd(int64_t tile, int64_t panel, const float* sums) const {
  alignas(64) float taps[9 * kWgradRows * kPanel];
  const int64_t step = tile_rows_ * kPanel;
  for (int64_t row = 0; row < tile_rows_; ++row)
    kernels_.transform_filter(sums + row * kPanel, step, taps + row * kPanel, step);
  store(tile, panel, taps, step);
}

void Wgrad::run_winograd(const WgradShare& share, float* memory) const {
  const WinogradLayout layout(*this);
  const int64_t tiles = share.tiles.end - share.tiles.begin;
  float* copied = memory;
  float* v = copied + layout.copied();
  float* z = v + kPoints * layout.v_point;
  float* sums = z + tiles * layout.z_tile;
  const auto kernel = kernels_.tile(tile_rows_);
  WgradTile work{};
  work.images = work.lines = 1;
  work.b_step = kPanel;
  layout.chunks.for_each(layout.down, dy_.images, [&](const WgradChunk& chunk) {
    const int64_t lines = chunk.lines.end - chunk.lines.begin;
    work.length = (chunk.images.end - chunk.images.begin) * lines * layout.across;
    work.add = chunk.images.begin + chunk.lines.begin > 0;
    const bool last = chunk.images.end == dy_.images && chunk.lines.end == layout.down;
    transform_gradients(layout, chunk, share.tiles, z);
    for (int64_t p = share.panels.begin; p < share.panels.end; ++p) {
      copy_input(layout.region, chunk, 2 * lines + 2, {p, p + 1}, copied, 0);
      transform_inputs(layout, chunk, copied, v);
      for (int64_t t = 0; t < tiles; ++t) {
        float* own = sums + ((p - share.panels.begin) * tiles + t) * layout.sums;
        for (int64_t point = 0; point < kPoints; ++point) {
          work.a = z + t * layout.z_tile + point * layout.z_point;
          work.b = v + point * layout.v_point;
          work.sums = own + point * tile_rows_ * kPanel;
          kernel(work);
        }
        if (last) finish_winograd(share.tiles.begin + t, p, own);
      }
    }
  });
}

}  // namespace fusedres::conv
