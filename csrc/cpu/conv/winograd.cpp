#include "cpu/conv/winograd.h"

#include <algorithm>
#include <limits>

namespace fusedres::conv {
namespace {

// V of one block of patches: it should stay in L2 beside a panel of weights.
constexpr int64_t kBlockBytes = 512 * 1024;
constexpr int64_t kLine = 16;  // floats

}  // namespace

// Where V and M of a block of patches lie. All distances in floats, padded by a line so that the 16 points
// and the rows of a tile do not fall into one set of the L1 cache.
struct WinogradConv::Layout {
  int64_t channels, row, v_point, m_point, zeros;

  Layout(const WinogradConv& conv, int64_t patches) {
    channels = packed_header(conv.packed).filter.in_channels;
    zeros = round_up(channels, kLine);
    row = zeros + kLine;
    v_point = patches * row + kLine;
    m_point = patches * kPanel + kLine;
  }
  int64_t v_floats() const { return 16 * v_point; }
  int64_t m_floats() const { return 16 * m_point; }
};

int64_t WinogradConv::patch_count() const {
  return out.images * ceil_div(out.height, 2) * ceil_div(out.width, 2);
}

void WinogradConv::plan(int64_t for_threads) {
  threads = for_threads;
  const PackedHeader& header = packed_header(packed);
  const Layout one(*this, 1);
  const int64_t patches = patch_count();
  const int64_t fitting = std::max<int64_t>(14, kBlockBytes / (16 * one.row * 4) / 14 * 14);
  const int64_t weights = header.bytes;
  // Splitting the panels reads the weights once; splitting the patches reads them once a thread.
  split_panels = threads > 1 && header.filter.panels() >= threads && patches <= 2 * fitting &&
                 weights > 16 * patches * one.row * 4;
  const int64_t own = ceil_div(patches, chunks(0));
  block = split_panels ? patches : ceil_div(own, ceil_div(own, fitting));
}

int64_t WinogradConv::chunks(int64_t phase) const {
  if (threads == 1) return 1;
  const int64_t most = phase == 0 ? patch_count() : packed_header(packed).filter.panels();
  return std::min(most, kChunksOfThread * threads);
}

int64_t WinogradConv::scratch_bytes() const {
  const Layout layout(*this, block);
  const int64_t v = split_panels ? layout.v_floats() : threads * layout.v_floats();
  return 4 * (v + threads * (layout.zeros + layout.m_floats()));
}

void WinogradConv::transform_inputs(
    const Layout& layout, Range patches, int64_t base, const float* zeros, float* v) const {
  const Filter& filter = packed_header(packed).filter;
  const int64_t across = ceil_div(out.width, 2), down = ceil_div(out.height, 2);
  for (int64_t t = patches.begin; t < patches.end; ++t) {
    const int64_t n = t / (across * down);
    const int64_t top = t / across % down * 2 - filter.pad_h, left = t % across * 2 - filter.pad_w;
    const float* patch[16];
    for (int64_t i = 0; i < 4; ++i)
      for (int64_t j = 0; j < 4; ++j) {
        const int64_t y = top + i, x = left + j;
        const bool inside = y >= 0 && y < in.height && x >= 0 && x < in.width;
        patch[i * 4 + j] = inside ? reinterpret_cast<const float*>(in.at(n, y, x)) : zeros;
      }
    transforms->input(patch, layout.channels, v + (t - base) * layout.row, layout.v_point);
  }
}

void WinogradConv::multiply_panel(
    const Layout& layout, int64_t panel, Range patches, const float* v, float* m) const {
  const PackedHeader& header = packed_header(packed);
  const int64_t bytes = panel_bytes(header);
  const char* weights = packed_data(packed) + panel * bytes;
  const int64_t count = patches.end - patches.begin;
  const int64_t halves = ceil_div(count, tiles->max_rows);
  static constexpr int64_t kNoTap[1] = {0};
  alignas(64) static constexpr float kOnes[kPanel] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                                                      1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
  alignas(64) static constexpr float kZeros[kPanel] = {};

  TileCommon common;
  common.rows = ceil_div(count, halves);
  common.in_step = layout.row * 4;
  common.out_step = kPanel * 4;
  common.taps = kNoTap;
  common.tap_count = 1;
  common.run = layout.channels;
  common.floor = -std::numeric_limits<float>::infinity();
  const TileKernel kernels[2] = {tiles->kernel(common.rows, 1), tiles->kernel(common.rows, 2)};
  Tile tile{};
  tile.scale = kOnes;
  tile.shift = kZeros;
  tile.channels = kPanel;
  for (int64_t point = 0; point < 16; ++point) {
    tile.weights = weights + point * (bytes / 16);
    for (int64_t h = 0; h < halves; h += 2) {
      const int64_t pair = std::min<int64_t>(2, halves - h);
      for (int64_t i = 0; i < pair; ++i) {
        const int64_t row = std::min((h + i) * common.rows, count - common.rows);
        tile.in[i] = reinterpret_cast<const char*>(v + point * layout.v_point + row * layout.row);
        tile.out[i] = reinterpret_cast<char*>(m + point * layout.m_point + row * kPanel);
      }
      // The tiles of a point fetch the weights of the next; after the last comes the next panel.
      tile.ahead_bytes = bytes / 16 / ceil_div(halves, 2);
      tile.ahead = tile.weights + bytes / 16 + h / 2 * tile.ahead_bytes;
      kernels[pair - 1](common, tile);
    }
  }

  const float floor = epilogue.relu ? 0.0f : common.floor;
  const int64_t across = ceil_div(out.width, 2), down = ceil_div(out.height, 2);
  const int64_t first = panel * kPanel;
  const int64_t channels = std::min(kPanel, header.filter.out_channels - first);
  for (int64_t t = patches.begin; t < patches.end; ++t) {
    const int64_t n = t / (across * down), top = t / across % down * 2, left = t % across * 2;
    float* to[4];
    const float* add[4];
    for (int64_t i = 0; i < 4; ++i) {
      const int64_t y = top + i / 2, x = left + i % 2;
      const bool inside = y < out.height && x < out.width;
      to[i] = inside ? reinterpret_cast<float*>(out.at(n, y, x)) + first : nullptr;
      add[i] = inside && residual.data != nullptr
                   ? reinterpret_cast<const float*>(residual.at(n, y, x)) + first
                   : nullptr;
    }
    transforms->output(
        m + (t - patches.begin) * kPanel, layout.m_point, to, add, epilogue.scale + first,
        epilogue.shift + first, floor, channels);
  }
}

int64_t WinogradConv::pixels_before(int64_t line) const {
  const int64_t down = ceil_div(out.height, 2);
  return (line / down * out.height + line % down * 2) * out.width;
}

void WinogradConv::run(int64_t phase, int64_t chunk, int64_t thread) const {
  const Layout layout(*this, block);
  const int64_t patches = patch_count(), panels = packed_header(packed).filter.panels();
  // Per thread: a pixel of zeros and M; V too, unless the threads share one.
  float* zeros = reinterpret_cast<float*>(scratch) + thread * (layout.zeros + layout.m_floats());
  float* m = zeros + layout.zeros;
  float* v = reinterpret_cast<float*>(scratch) + threads * (layout.zeros + layout.m_floats()) +
             (split_panels ? 0 : thread * layout.v_floats());
  const Range own = share(split_panels && phase == 1 ? panels : patches, chunk, chunks(phase));
  if (phase == 0) std::fill_n(zeros, layout.zeros, 0.0f);
  if (split_panels) {
    if (phase == 0) return transform_inputs(layout, own, 0, zeros, v);
    for (int64_t p = own.begin; p < own.end; ++p) multiply_panel(layout, p, {0, patches}, v, m);
    return;
  }
  const int64_t across = ceil_div(out.width, 2), first = pixels_before(ceil_div(own.begin, across));
  for (int64_t from = own.begin; from < own.end; from += block) {
    const Range now{from, std::min(from + block, own.end)};
    transform_inputs(layout, now, from, zeros, v);
    for (int64_t p = 0; p < panels; ++p) multiply_panel(layout, p, now, v, m);
    watcher.tell(first, std::max(first, pixels_before(from / across)), pixels_before(now.end / across));
  }
}

}  // namespace fusedres::conv
