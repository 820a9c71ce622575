#include "cpu/conv/winograd.h"

#include <algorithm>
#include <limits>

namespace fusedres::conv {
namespace {

// V of one block of patches lies in L2 (2 MB on Sapphire Rapids) beside all weights, where these are small.
// Else it takes most of L2, so that few blocks read the weights, which come from L3: 512 -> 512 at 7 x 7, 8
// images, F(2x2), 14.3 ms with the small block, 10.7 with the large one. ResNet-50 at batch 1 has only small
// weights in blocks: about 1% slower with large ones.
constexpr int64_t kSmallWeights = 1300 * 1024;
constexpr int64_t kBlockOfSmallWeights = 512 * 1024;
constexpr int64_t kBlockBytes = 1152 * 1024;
// Weights so large that even such blocks read them too often go point by point: of one point V, M and the
// weights of all panels stay in L2, and only V and M of all points lie in L3. The same layer, F(4x4): 14.2 ms
// to 6.8.
constexpr int64_t kLargeWeights = 5 * 1024 * 1024;
constexpr int64_t kLargeBlock = 8 * 1024 * 1024;  // V and M
constexpr int64_t kLine = 16;                     // floats

}  // namespace

// Where V and M of a block of patches lie. All distances in floats, padded by a line so that the points
// and the rows of a tile do not fall into one set of the L1 cache.
struct WinogradConv::Layout {
  int64_t channels, row, v_point, m_point, m_panel, zeros, points;

  Layout(const WinogradConv& conv, int64_t patches) {
    channels = packed_header(conv.packed).filter.in_channels;
    zeros = round_up(channels, kLine);
    row = zeros + kLine;
    v_point = patches * row + kLine;
    m_panel = patches * kPanel;
    m_point = m_panel * (conv.point_by_point ? conv.panels_at_once() : 1) + kLine;
    points = conv.transforms->points();
  }
  int64_t v_floats() const { return points * v_point; }
  int64_t m_floats() const { return points * m_point; }
};

int64_t WinogradConv::patch_count() const {
  return out.images * ceil_div(out.height, transforms->outputs) * ceil_div(out.width, transforms->outputs);
}

void WinogradConv::plan(int64_t for_threads) {
  threads = for_threads;
  const PackedHeader& header = packed_header(packed);
  const Layout one(*this, 1);
  const int64_t patches = patch_count();
  const int64_t weights = header.bytes;
  const int64_t v_bytes = one.points * one.row * 4;  // of a patch
  const int64_t block_bytes = weights <= kSmallWeights ? kBlockOfSmallWeights : kBlockBytes;
  const int64_t fitting = std::max<int64_t>(14, block_bytes / v_bytes / 14 * 14);
  // Splitting the panels reads the weights once; splitting the patches reads them once a chunk.
  split_panels = threads > 1 && header.filter.panels() >= threads && weights > patches * v_bytes &&
                 patches <= std::max(2 * fitting, kLargeBlock / v_bytes);
  const int64_t own = split_panels ? patches : ceil_div(patches, chunks(0));
  point_by_point = (split_panels ? weights / threads : weights) > kLargeWeights && own > fitting;
  const int64_t m_bytes = one.points * panels_at_once() * kPanel * 4;
  const int64_t at_once = point_by_point ? std::max(fitting, kLargeBlock / (v_bytes + m_bytes)) : fitting;
  block = split_panels ? patches : ceil_div(own, ceil_div(own, at_once));
}

int64_t WinogradConv::chunks(int64_t phase) const {
  if (threads == 1) return 1;
  const int64_t most = phase == 0 ? patch_count() : packed_header(packed).filter.panels();
  return std::min(most, kChunksOfThread * threads);
}

int64_t WinogradConv::panels_at_once() const {
  const int64_t panels = packed_header(packed).filter.panels();
  return split_panels ? ceil_div(panels, chunks(1)) : panels;
}

int64_t WinogradConv::scratch_bytes() const {
  const Layout layout(*this, block);
  const int64_t v = split_panels ? layout.v_floats() : threads * layout.v_floats();
  return 4 * (v + threads * (layout.zeros + layout.m_floats()));
}

void WinogradConv::transform_inputs(
    const Layout& layout, Range patches, int64_t base, const float* zeros, float* v) const {
  const Filter& filter = packed_header(packed).filter;
  const int64_t outputs = transforms->outputs, side = transforms->side();
  const int64_t across = ceil_div(out.width, outputs), down = ceil_div(out.height, outputs);
  for (int64_t t = patches.begin; t < patches.end; ++t) {
    const int64_t n = t / (across * down);
    const int64_t top = t / across % down * outputs - filter.pad_h;
    const int64_t left = t % across * outputs - filter.pad_w;
    const float* patch[kMostWinogradPoints];
    for (int64_t i = 0; i < side; ++i)
      for (int64_t j = 0; j < side; ++j) {
        const int64_t y = top + i, x = left + j;
        const bool inside = y >= 0 && y < in.height && x >= 0 && x < in.width;
        patch[i * side + j] = inside ? reinterpret_cast<const float*>(in.at(n, y, x)) : zeros;
      }
    transforms->input(patch, layout.channels, v + (t - base) * layout.row, layout.v_point);
  }
}

void WinogradConv::multiply(
    const Layout& layout, int64_t panel, int64_t point, int64_t count, const float* v, float* m) const {
  const int64_t bytes = panel_bytes(packed_header(packed)), point_bytes = bytes / layout.points;
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
  tile.weights = packed_data(packed) + panel * bytes + point * point_bytes;
  const float* from = v + point * layout.v_point;
  float* to = m + point * layout.m_point;
  // The tiles fetch the weights that come next: this point's of the next panel, or the next point's (after
  // which comes the next panel).
  const char* coming = tile.weights + (point_by_point ? bytes : point_bytes);
  for (int64_t h = 0; h < halves; h += 2) {
    const int64_t pair = std::min<int64_t>(2, halves - h);
    for (int64_t i = 0; i < pair; ++i) {
      const int64_t row = std::min((h + i) * common.rows, count - common.rows);
      tile.in[i] = reinterpret_cast<const char*>(from + row * layout.row);
      tile.out[i] = reinterpret_cast<char*>(to + row * kPanel);
    }
    tile.ahead_bytes = point_bytes / ceil_div(halves, 2);
    tile.ahead = coming + h / 2 * tile.ahead_bytes;
    kernels[pair - 1](common, tile);
  }
}

void WinogradConv::transform_outputs(
    const Layout& layout, int64_t panel, Range patches, const float* m) const {
  const float floor = epilogue.relu ? 0.0f : -std::numeric_limits<float>::infinity();
  const int64_t outputs = transforms->outputs;
  const int64_t across = ceil_div(out.width, outputs), down = ceil_div(out.height, outputs);
  const int64_t first = panel * kPanel;
  const int64_t channels = std::min(kPanel, packed_header(packed).filter.out_channels - first);
  for (int64_t t = patches.begin; t < patches.end; ++t) {
    const int64_t n = t / (across * down);
    const int64_t top = t / across % down * outputs, left = t % across * outputs;
    float* to[kMostWinogradOutputs];
    const float* add[kMostWinogradOutputs];
    for (int64_t i = 0; i < outputs * outputs; ++i) {
      const int64_t y = top + i / outputs, x = left + i % outputs;
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

void WinogradConv::multiply_block(
    const Layout& layout, Range panels, Range patches, const float* v, float* m) const {
  const int64_t count = patches.end - patches.begin;
  if (point_by_point) {
    for (int64_t point = 0; point < layout.points; ++point)
      for (int64_t p = panels.begin; p < panels.end; ++p)
        multiply(layout, p, point, count, v, m + (p - panels.begin) * layout.m_panel);
    for (int64_t p = panels.begin; p < panels.end; ++p)
      transform_outputs(layout, p, patches, m + (p - panels.begin) * layout.m_panel);
    return;
  }
  for (int64_t p = panels.begin; p < panels.end; ++p) {
    for (int64_t point = 0; point < layout.points; ++point) multiply(layout, p, point, count, v, m);
    transform_outputs(layout, p, patches, m);
  }
}

int64_t WinogradConv::pixels_before(int64_t line) const {
  const int64_t down = ceil_div(out.height, transforms->outputs);
  return (line / down * out.height + line % down * transforms->outputs) * out.width;
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
    return multiply_block(layout, own, {0, patches}, v, m);
  }
  const int64_t across = ceil_div(out.width, transforms->outputs);
  const int64_t first = pixels_before(ceil_div(own.begin, across));
  for (int64_t from = own.begin; from < own.end; from += block) {
    const Range now{from, std::min(from + block, own.end)};
    transform_inputs(layout, now, from, zeros, v);
    multiply_block(layout, {0, panels}, now, v, m);
    watcher.tell(first, std::max(first, pixels_before(from / across)), pixels_before(now.end / across));
  }
}

}  // namespace fusedres::conv
