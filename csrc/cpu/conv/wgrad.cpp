#include "cpu/conv/wgrad.h"

#include <algorithm>

namespace fusedres::conv {
namespace {

constexpr int64_t kLine = 16;  // floats; it keeps panels, and tiles, out of each other's sets of L1

// K in an even number of tiles, or nearly: a thread of two with one more would be waited for. 64 filters are
// eight tiles of 8 or six of 11, not five of 13. Half a row stands for what a pixel costs besides.
int64_t rows_of_tiles(int64_t filters, int64_t fewest, int64_t most) {
  int64_t best = 1, least = INT64_MAX;
  for (int64_t rows = std::min(fewest, filters); rows <= most; ++rows) {
    const int64_t cost = round_up(ceil_div(filters, rows), 2) * (2 * rows + 1);
    if (cost < least) best = rows, least = cost;
  }
  return best;
}

}  // namespace

WgradChunks::WgradChunks(int64_t height, int64_t length, int64_t all_images, int64_t pixels) {
  const int64_t pieces = ceil_div(height, std::clamp<int64_t>(pixels / length, 1, height));
  lines = ceil_div(height, pieces);
  const int64_t fitting = pieces > 1 ? 1 : std::clamp<int64_t>(pixels / (height * length), 1, all_images);
  images = ceil_div(all_images, ceil_div(all_images, fitting));
}

Wgrad::Wgrad(
    const WgradKernels& kernels, bool winograd, const Filter& filter, const Map& x,
    const Activation& activation, const Map& dy, const WeightGradient<float>& dw)
    : kernels_(kernels),
      winograd_(winograd),
      filter_(filter),
      x_(x),
      dy_(dy),
      activation_(activation),
      dw_(dw),
      tile_rows_(rows_of_tiles(filter.out_channels, kernels.fewest_rows, kernels.most_rows)),
      taps_(filter.rows * filter.cols) {}

// The larger operand is shared out, and the smaller copied by each thread.
WgradShare Wgrad::share_of(int64_t part, int64_t parts) const {
  const Range tiles{0, ceil_div(filter_.out_channels, tile_rows_)};
  const Range panels{0, ceil_div(filter_.in_channels, kPanel)};
  const bool large_x = x_.images * x_.image > dy_.images * dy_.image;
  const bool by_panels = panels.end >= parts && (large_x || tiles.end < parts);
  return by_panels ? WgradShare{tiles, share(panels.end, part, parts)}
                   : WgradShare{share(tiles.end, part, parts), panels};
}

int64_t Wgrad::part_bytes(int64_t parts) const {
  int64_t most = 0;
  for (int64_t part = 0; part < parts; ++part) {
    const WgradShare own = share_of(part, parts);
    most = std::max(most, winograd_ ? winograd_floats(own) : direct_floats(own));
  }
  return 4 * round_up(most, kLine);
}

void Wgrad::run(int64_t part, int64_t parts, char* scratch) const {
  const WgradShare own = share_of(part, parts);
  if (own.tiles.begin == own.tiles.end || own.panels.begin == own.panels.end) return;
  auto* memory = reinterpret_cast<float*>(scratch + part * part_bytes(parts));
  winograd_ ? run_winograd(own, memory) : run_direct(own, memory);
}

void Wgrad::copy_input(
    const Region& region, const WgradChunk& chunk, int64_t rows, Range panels, float* to,
    int64_t panel) const {
  const int64_t first = panels.begin * kPanel;
  const int64_t channels = std::min(panels.end * kPanel, filter_.in_channels) - first;
  const Activation activation = activation_.from(first);
  const auto copy = [&](const float* from, int64_t pixels, float* at) {
    if (pixels > 0)
      kernels_.pack_panels(from, region.take_w * x_.channels, pixels, channels, activation, at, panel);
  };
  // Copied columns that lie inside the image.
  const int64_t left = std::clamp<int64_t>(ceil_div(filter_.pad_w, region.take_w), 0, region.width);
  const int64_t right =
      std::clamp<int64_t>(ceil_div(x_.width + filter_.pad_w, region.take_w), left, region.width);
  for (int64_t n = chunk.images.begin; n < chunk.images.end; ++n, to += region.pixels() * kPanel)
    for (int64_t row = 0; row < rows; ++row) {
      float* line = to + row * region.width * kPanel;
      const int64_t y = chunk.lines.begin * region.line + row * region.take_h - filter_.pad_h;
      if (y < 0 || y >= x_.height) {
        copy(nullptr, region.width, line);
        continue;
      }
      const char* inside = x_.at(n, y, left * region.take_w - filter_.pad_w);
      copy(nullptr, left, line);
      copy(reinterpret_cast<const float*>(inside) + first, right - left, line + left * kPanel);
      copy(nullptr, region.width - right, line + right * kPanel);
    }
}

void Wgrad::store(int64_t tile, int64_t panel, const float* sums, int64_t tap) const {
  const int64_t k0 = tile * tile_rows_, c0 = panel * kPanel;
  const int64_t filters = std::min(tile_rows_, filter_.out_channels - k0);
  const int64_t channels = std::min(kPanel, filter_.in_channels - c0);
  for (int64_t k = 0; k < filters; ++k)
    for (int64_t t = 0; t < taps_; ++t) {
      const float* from = sums + t * tap + k * kPanel;
      float* to = dw_.at(k0 + k, c0) + t * dw_.tap;
      if (dw_.channel == 1) {
        std::copy_n(from, channels, to);
      } else {
        for (int64_t c = 0; c < channels; ++c) to[c * dw_.channel] = from[c];
      }
    }
}

// Where a chunk's copies lie.
struct Wgrad::DirectLayout {
  WgradChunks chunks;
  Region region;
  int64_t step_h, step_w;     // copied pixels from one output's to the next's
  int64_t panel, tile, sums;  // floats of each
  int64_t block = 0;          // panels copied at once

  DirectLayout(const Wgrad& w, const WgradShare& share)
      : chunks(w.dy_.height, w.dy_.width, w.dy_.images, w.kernels_.chunk) {
    // Where the filter is one pixel wide, the pixels between strides are left out.
    const Filter& f = w.filter_;
    step_h = f.rows == 1 ? 1 : f.stride_h;
    step_w = f.cols == 1 ? 1 : f.stride_w;
    region = {
        (chunks.lines - 1) * step_h + f.rows, (w.dy_.width - 1) * step_w + f.cols, f.stride_h,
        f.rows == 1 ? f.stride_h : 1, f.cols == 1 ? f.stride_w : 1};
    panel = chunks.images * region.pixels() * kPanel + kLine;
    tile = round_up(chunks.images * chunks.lines * w.dy_.width * w.tile_rows_, kLine) + kLine;
    sums = w.taps_ * w.tile_rows_ * kPanel;
    const int64_t own = share.panels.end - share.panels.begin;
    if (own == 0) return;
    block = ceil_div(own, ceil_div(own, std::clamp<int64_t>(w.kernels_.copied_bytes / 4 / panel, 1, own)));
  }
};

int64_t Wgrad::direct_floats(const WgradShare& share) const {
  const int64_t tiles = share.tiles.end - share.tiles.begin;
  if (tiles == 0 || share.panels.begin == share.panels.end) return 0;
  const DirectLayout layout(*this, share);
  return round_up(layout.block * layout.panel, kLine) + tiles * layout.tile +
         layout.block * tiles * layout.sums;
}

void Wgrad::copy_gradient(const WgradChunk& chunk, Range tiles, float* to, int64_t tile) const {
  const int64_t first = tiles.begin * tile_rows_;
  const int64_t channels = std::min(tiles.end * tile_rows_, filter_.out_channels) - first;
  const int64_t pixels = (chunk.lines.end - chunk.lines.begin) * dy_.width;
  for (int64_t n = chunk.images.begin; n < chunk.images.end; ++n, to += pixels * tile_rows_) {
    const char* from = dy_.at(n, chunk.lines.begin, 0);
    kernels_.pack_tiles(
        reinterpret_cast<const float*>(from) + first, dy_.channels, pixels, channels, tile_rows_, to, tile);
  }
}

void Wgrad::multiply(
    const DirectLayout& layout, const WgradChunk& chunk, int64_t panels, int64_t tiles, const float* a,
    const float* b, float* sums) const {
  const auto kernel = kernels_.tile(tile_rows_);
  WgradTile work{};
  work.images = chunk.images.end - chunk.images.begin;
  work.lines = chunk.lines.end - chunk.lines.begin;
  work.length = dy_.width;
  work.b_step = layout.step_w * kPanel;
  work.b_line = layout.step_h * layout.region.width * kPanel;
  work.b_image = layout.region.pixels() * kPanel;
  work.add = chunk.images.begin + chunk.lines.begin > 0;
  if (taps_ == 1) {  // the copy has no gaps: one long line
    work.length *= work.lines * work.images;
    work.lines = work.images = 1;
  }
  for (int64_t p = 0; p < panels; ++p)
    for (int64_t t = 0; t < tiles; ++t)
      for (int64_t tap = 0; tap < taps_; ++tap) {
        const int64_t pixel = tap / filter_.cols * layout.region.width + tap % filter_.cols;
        work.a = a + t * layout.tile;
        work.b = b + p * layout.panel + pixel * kPanel;
        work.sums = sums + (p * tiles + t) * layout.sums + tap * tile_rows_ * kPanel;
        kernel(work);
      }
}

void Wgrad::run_direct(const WgradShare& share, float* memory) const {
  const DirectLayout layout(*this, share);
  const int64_t tiles = share.tiles.end - share.tiles.begin;
  float* b = memory;
  float* a = b + round_up(layout.block * layout.panel, kLine);
  float* sums = a + tiles * layout.tile;
  for (int64_t p0 = share.panels.begin; p0 < share.panels.end; p0 += layout.block) {
    const Range panels{p0, std::min(p0 + layout.block, share.panels.end)};
    layout.chunks.for_each(dy_.height, dy_.images, [&](const WgradChunk& chunk) {
      const int64_t lines = chunk.lines.end - chunk.lines.begin;
      copy_input(layout.region, chunk, (lines - 1) * layout.step_h + filter_.rows, panels, b, layout.panel);
      copy_gradient(chunk, share.tiles, a, layout.tile);
      multiply(layout, chunk, panels.end - panels.begin, tiles, a, b, sums);
    });
    for (int64_t p = panels.begin; p < panels.end; ++p)
      for (int64_t t = 0; t < tiles; ++t)
        store(
            share.tiles.begin + t, p, sums + ((p - panels.begin) * tiles + t) * layout.sums,
            tile_rows_ * kPanel);
  }
}

}  // namespace fusedres::conv
