#include "cpu/conv/winograd.h"

#include <algorithm>
#include <limits>

#include "cpu/conv/pieces.h"

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
constexpr int64_t kLineBytes = 64;
// Transformed values of a pixel's channels that wait in L1 to be packed: AVX-512's 14 patches take 36 KB.
constexpr int64_t kSliceFloats = 576;

// What a thread's V holds: this block of patches of the convolution with this plan.
struct TransformedBlock {
  uint64_t serial;
  int64_t thread, block;
};
thread_local TransformedBlock transformed_block{0, 0, 0};

int64_t tile_patches(const TileFamily& tiles) { return tiles.strips * tiles.max_rows; }

}  // namespace

// The patches of a block as tiles take them: strips of equal length, a tile's to a group; the last strip is
// moved back to end with the block.
struct WinogradConv::Groups {
  int64_t patches, rows, strips, of_tile;

  Groups(int64_t patches, const TileFamily& tiles)
      : patches(patches),
        rows(ceil_div(patches, ceil_div(patches, tiles.max_rows))),
        strips(ceil_div(patches, rows)),
        of_tile(tiles.strips) {}
  int64_t count() const { return ceil_div(strips, of_tile); }
  int64_t first_strip(int64_t group) const { return first_of_part(strips, group, count()); }
  int64_t strips_of(int64_t group) const { return first_strip(group + 1) - first_strip(group); }
  // The first patch of a strip of a group.
  int64_t first(int64_t group, int64_t strip) const {
    return std::min((first_strip(group) + strip) * rows, patches - rows);
  }
  // The patches of some groups, each patch in one group alone.
  Range patches_of(Range groups) const {
    return {first_strip(groups.begin) * rows, std::min(first_strip(groups.end) * rows, patches)};
  }
};

// Where V and M of a block of patches lie; V patch after patch or, packed (tile.h), group after group.
// Distances of V and of the pixel of zeros are in bytes, those of M and of the slices (of fp32 that is
// packed) in floats. Points and patches are padded by a line so that they do not fall into one set of the L1
// cache.
struct WinogradConv::Layout {
  bool packs;
  int64_t channels, patch, group, v_point, zeros;
  int64_t m_point, m_panel, points, slice_patch, slice_point;

  Layout(const WinogradConv& conv, int64_t patches) {
    channels = packed_header(conv.packed).filter.in_channels;
    zeros = round_up(channels * conv.element(), kLineBytes);
    points = conv.transforms->points();
    const InputPacking* packing = conv.tiles->packing;
    packs = packing != nullptr && packed_header(conv.packed).filter.panels() >= packing->worth_panels;
    patch = zeros + kLineBytes;
    group = packs ? packing->bytes(channels) : 0;
    const int64_t groups = Groups(patches, *conv.tiles).count();
    v_point = (packs ? groups * group : patches * patch) + kLineBytes;
    m_panel = patches * kPanel;
    m_point = m_panel * (conv.point_by_point ? conv.panels_at_once() : 1) + kLine;
    slice_patch = round_up(std::max(kLine, kSliceFloats / points / kLine * kLine), conv.tiles->input_group);
    slice_point = tile_patches(*conv.tiles) * slice_patch + kLine;
  }
  int64_t v_bytes() const { return points * v_point; }
  int64_t m_floats() const { return points * m_point; }
  // What each thread has for itself: a pixel of zeros, some channels of a group before they are packed, M.
  int64_t slice_floats() const { return packs ? points * slice_point : 0; }
  int64_t own_bytes() const { return zeros + 4 * (slice_floats() + m_floats()); }
};

int64_t WinogradConv::element() const {
  return element_size(data_type(static_cast<Algorithm>(packed_header(packed).algorithm)));
}

int64_t WinogradConv::patch_count() const {
  return out.images * ceil_div(out.height, transforms->outputs) * ceil_div(out.width, transforms->outputs);
}

void WinogradConv::plan(int64_t for_threads) {
  serial = new_serial();
  threads = for_threads;
  const PackedHeader& header = packed_header(packed);
  const Layout one(*this, 1);
  const int64_t patches = patch_count();
  const int64_t weights = header.bytes;
  // Of a patch.
  const int64_t v_bytes =
      one.points *
      (parts_of(static_cast<Algorithm>(header.algorithm)) > 0 ? one.group / tile_patches(*tiles) : one.patch);
  const int64_t block_bytes = weights <= kSmallWeights ? kBlockOfSmallWeights : kBlockBytes;
  const int64_t of_tile = tile_patches(*tiles);
  const int64_t fitting = std::max(of_tile, block_bytes / v_bytes / of_tile * of_tile);
  // Splitting the panels reads the weights once; splitting the patches reads them once a block.
  split_panels = threads > 1 && header.filter.panels() >= threads && weights > patches * v_bytes &&
                 patches <= std::max(2 * fitting, kLargeBlock / v_bytes);
  const int64_t own = split_panels ? patches : ceil_div(patches, threads);
  point_by_point = (split_panels ? weights / threads : weights) > kLargeWeights && own > fitting;
  const int64_t m_bytes = one.points * panels_at_once() * kPanel * 4;
  const int64_t at_once = point_by_point ? std::max(fitting, kLargeBlock / (v_bytes + m_bytes)) : fitting;
  // Whole tiles, as far as that fits: 98 patches are 42, 42 and 14.
  block = split_panels ? patches : ceil_div(own, ceil_div(own, at_once));
  if (round_up(block, of_tile) <= at_once) block = std::min(own, round_up(block, of_tile));
}

int64_t WinogradConv::chunks() const { return piece_count(threads); }

// Whose products are held until a patch is done: those of the largest piece.
int64_t WinogradConv::panels_at_once() const {
  const int64_t panels = packed_header(packed).filter.panels();
  return split_panels ? ceil_div(ceil_div(panels, threads), 2) : panels;
}

int64_t WinogradConv::scratch_bytes() const {
  const Layout layout(*this, block);
  const int64_t v = split_panels ? layout.v_bytes() : threads * layout.v_bytes();
  return v + threads * layout.own_bytes();
}

void WinogradConv::read_patch(int64_t patch, const char* zeros, const char** values) const {
  const Filter& filter = packed_header(packed).filter;
  const int64_t outputs = transforms->outputs, side = transforms->side();
  const int64_t across = ceil_div(out.width, outputs), down = ceil_div(out.height, outputs);
  const int64_t n = patch / (across * down);
  const int64_t top = patch / across % down * outputs - filter.pad_h;
  const int64_t left = patch % across * outputs - filter.pad_w;
  for (int64_t i = 0; i < side; ++i)
    for (int64_t j = 0; j < side; ++j) {
      const int64_t y = top + i, x = left + j;
      const bool inside = y >= 0 && y < in.height && x >= 0 && x < in.width;
      values[i * side + j] = inside ? in.at(n, y, x) : zeros;
    }
}

// To be packed, patches are transformed some channels at a time, as many of them as one tile takes: in L1.
// Else each is transformed once: where the last strip overlaps the one before, two threads that share V may
// have them.
void WinogradConv::transform_inputs(
    const Layout& layout, const Groups& groups, Range of_groups, Range channels, int64_t base, char* own,
    char* v) const {
  const char* zeros = own;
  auto* slice = reinterpret_cast<float*>(own + layout.zeros);
  const int64_t points = layout.points;
  const char* values[kMostTileRows][kMostWinogradPoints];
  if (!layout.packs) {
    const Range patches = groups.patches_of(of_groups);
    for (int64_t patch = patches.begin; patch < patches.end; ++patch) {
      read_patch(base + patch, zeros, values[0]);
      transforms->input(values[0], channels.size(), v + patch * layout.patch, layout.v_point);
    }
    return;
  }
  for (int64_t group = of_groups.begin; group < of_groups.end; ++group) {
    const int64_t strips = groups.strips_of(group), count = strips * groups.rows;
    const auto patch = [&](int64_t i) { return groups.first(group, i / groups.rows) + i % groups.rows; };
    for (int64_t i = 0; i < count; ++i) {
      read_patch(base + patch(i), zeros, values[i]);
      for (int64_t point = 0; point < points; ++point) values[i][point] += 4 * channels.begin;
    }
    for (int64_t c = channels.begin; c < channels.end; c += layout.slice_patch) {
      const int64_t now = std::min(layout.slice_patch, channels.end - c);
      for (int64_t i = 0; i < count; ++i) {
        auto* to = reinterpret_cast<char*>(slice + i * layout.slice_patch);
        transforms->input(values[i], now, to, 4 * layout.slice_point);
        for (int64_t point = 0; point < points; ++point) values[i][point] += 4 * now;
      }
      for (int64_t point = 0; point < points; ++point) {
        const float* first = slice + point * layout.slice_point;
        const char* from[kMostStrips];
        for (int64_t i = 0; i < tiles->strips; ++i)
          from[i] = reinterpret_cast<const char*>(
              first + std::min(i, strips - 1) * groups.rows * layout.slice_patch);
        char* to = v + point * layout.v_point + group * layout.group + tiles->packing->bytes(c);
        tiles->packing->pack(from, groups.rows, layout.slice_patch * 4, now, to);
      }
    }
  }
}

void WinogradConv::multiply(
    const Layout& layout, const Groups& groups, Range of_groups, int64_t panel, int64_t point, const char* v,
    float* m) const {
  const int64_t bytes = panel_bytes(packed_header(packed)), point_bytes = bytes / layout.points;
  static constexpr int64_t kNoTap[1] = {0};
  alignas(64) static constexpr float kOnes[kPanel] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                                                      1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
  alignas(64) static constexpr float kZeros[kPanel] = {};

  TileCommon common;
  common.rows = groups.rows;
  common.out_step = kPanel * 4;
  common.taps = kNoTap;
  common.tap_count = 1;
  common.run = packed_header(packed).run;
  common.floor = -std::numeric_limits<float>::infinity();
  common.in_step = layout.patch;
  const auto kernel = layout.packs ? tiles->packing->kernel : tiles->kernel;
  TileKernel kernels[kMostStrips];
  for (int64_t strips = 1; strips <= tiles->strips; ++strips)
    kernels[strips - 1] = kernel(common.rows, strips);
  if (tiles->enter != nullptr) tiles->enter(common);
  Tile tile{};
  tile.scale = kOnes;
  tile.shift = kZeros;
  tile.channels = kPanel;
  tile.weights = packed_data(packed) + panel * bytes + point * point_bytes;
  const char* from = v + point * layout.v_point;
  float* to = m + point * layout.m_point;
  // The tiles fetch the weights that come next: this point's of the next panel, or the next point's (after
  // which comes the next panel).
  const char* coming = tile.weights + (point_by_point ? bytes : point_bytes);
  tile.ahead_bytes = point_bytes / of_groups.size();
  for (int64_t group = of_groups.begin; group < of_groups.end; ++group) {
    tile.strips = groups.strips_of(group);
    for (int64_t i = 0; i < tile.strips; ++i) {
      const int64_t first = groups.first(group, i);
      tile.in[i] = from + first * layout.patch;
      tile.out[i] = reinterpret_cast<char*>(to + first * kPanel);
    }
    if (layout.packs) tile.in[0] = from + group * layout.group;
    tile.ahead = coming + (group - of_groups.begin) * tile.ahead_bytes;
    kernels[tile.strips - 1](common, tile);
  }
  if (tiles->leave != nullptr) tiles->leave();
}

void WinogradConv::transform_outputs(
    const Layout& layout, int64_t panel, Range patches, int64_t base, const float* m) const {
  const float floor = epilogue.relu ? 0.0f : -std::numeric_limits<float>::infinity();
  const int64_t outputs = transforms->outputs;
  const int64_t across = ceil_div(out.width, outputs), down = ceil_div(out.height, outputs);
  const int64_t first = panel * kPanel;
  const int64_t channels = std::min(kPanel, packed_header(packed).filter.out_channels - first);
  for (int64_t t = patches.begin; t < patches.end; ++t) {
    const int64_t n = t / (across * down);
    const int64_t top = t / across % down * outputs, left = t % across * outputs;
    char* to[kMostWinogradOutputs];
    const char* add[kMostWinogradOutputs];
    for (int64_t i = 0; i < outputs * outputs; ++i) {
      const int64_t y = top + i / outputs, x = left + i % outputs;
      const bool inside = y < out.height && x < out.width;
      to[i] = inside ? out.at(n, y, x) + first * element() : nullptr;
      add[i] = inside && residual.data != nullptr ? residual.at(n, y, x) + first * element() : nullptr;
    }
    transforms->output(
        m + (t - base) * kPanel, layout.m_point, to, add, epilogue.scale + first, epilogue.shift + first,
        floor, epilogue.rounds, channels);
  }
}

void WinogradConv::multiply_groups(
    const Layout& layout, const Groups& groups, Range of_groups, Range panels, int64_t base, const char* v,
    float* m) const {
  const Range local = groups.patches_of(of_groups), patches{base + local.begin, base + local.end};
  if (point_by_point) {
    for (int64_t point = 0; point < layout.points; ++point)
      for (int64_t p = panels.begin; p < panels.end; ++p)
        multiply(layout, groups, of_groups, p, point, v, m + (p - panels.begin) * layout.m_panel);
    for (int64_t p = panels.begin; p < panels.end; ++p)
      transform_outputs(layout, p, patches, base, m + (p - panels.begin) * layout.m_panel);
    return;
  }
  for (int64_t p = panels.begin; p < panels.end; ++p) {
    for (int64_t point = 0; point < layout.points; ++point)
      multiply(layout, groups, of_groups, p, point, v, m);
    transform_outputs(layout, p, patches, base, m);
  }
}

int64_t WinogradConv::pixels_before(int64_t line) const {
  const int64_t down = ceil_div(out.height, transforms->outputs);
  return (line / down * out.height + line % down * transforms->outputs) * out.width;
}

// Every thread has patches of its own, a block of them at a time. Pieces are cut between blocks and, unless
// somebody waits for whole pixels or all panels go together, between the panels of a block.
void WinogradConv::run_patches(
    const Layout& layout, int64_t chunk, int64_t thread, char* own, char* v, float* m) const {
  const int64_t panels = packed_header(packed).filter.panels();
  const Range share = share_of(patch_count(), chunk, threads);
  const int64_t blocks = ceil_div(share.size(), block);
  const int64_t cols = point_by_point || watcher.completed != nullptr ? 1 : panels;
  const int64_t across = ceil_div(out.width, transforms->outputs);
  const Range cells = piece_of({0, blocks * cols}, chunk, threads);
  const int64_t first = pixels_before(ceil_div(share.begin + cells.begin / cols * block, across));
  visit_cells(cells, cols, [&](Range rows, Range in_cols) {
    const Range of_panels{panels * in_cols.begin / cols, panels * in_cols.end / cols};
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      const int64_t from = share.begin + row * block;
      const Range now{from, std::min(from + block, share.end)};
      const Groups groups(now.size(), *tiles);
      const Range all{0, groups.count()};
      TransformedBlock& held = transformed_block;
      if (held.serial != serial || held.thread != thread || held.block != from) {
        transform_inputs(layout, groups, all, {0, layout.channels}, from, own, v);
        held = {serial, thread, from};
      }
      multiply_groups(layout, groups, all, of_panels, from, v, m);
      watcher.tell(
          first, std::max(first, pixels_before(now.begin / across)), pixels_before(now.end / across));
    }
  });
}

// The threads share V, and every thread has panels of its own.
void WinogradConv::run_panels(
    const Layout& layout, int64_t phase, int64_t chunk, char* own, char* v, float* m) const {
  const Groups groups(patch_count(), *tiles);
  if (phase == 0) {
    const int64_t slices = layout.packs ? ceil_div(layout.channels, layout.slice_patch) : 1;
    visit_cells(piece(groups.count() * slices, chunk, threads), slices, [&](Range rows, Range cols) {
      const Range channels{
          layout.slice_patch * cols.begin, std::min(layout.slice_patch * cols.end, layout.channels)};
      transform_inputs(layout, groups, rows, layout.packs ? channels : Range{0, layout.channels}, 0, own, v);
    });
    return;
  }
  const Range panels = share_of(packed_header(packed).filter.panels(), chunk, threads);
  const int64_t parts = point_by_point ? 1 : parts_of_each(panels.size(), groups.count());
  visit_cells(piece_of({0, panels.size() * parts}, chunk, threads), parts, [&](Range rows, Range cols) {
    const Range of_groups{groups.count() * cols.begin / parts, groups.count() * cols.end / parts};
    const Range of_panels{panels.begin + rows.begin, panels.begin + rows.end};
    multiply_groups(layout, groups, of_groups, of_panels, 0, v, m);
  });
}

void WinogradConv::run(int64_t phase, int64_t chunk, int64_t thread) const {
  const Layout layout(*this, block);
  // V of each thread, unless the threads share one.
  char* own = scratch + thread * layout.own_bytes();
  auto* m = reinterpret_cast<float*>(own + layout.zeros) + layout.slice_floats();
  char* v = scratch + threads * layout.own_bytes() + (split_panels ? 0 : thread * layout.v_bytes());
  if (phase == 0) std::fill_n(own, layout.zeros, char{0});
  if (split_panels) return run_panels(layout, phase, chunk, own, v, m);
  run_patches(layout, chunk, thread, own, v, m);
}

}  // namespace fusedres::conv
