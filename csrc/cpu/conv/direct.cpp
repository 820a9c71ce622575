#include "cpu/conv/direct.h"

#include <algorithm>
#include <limits>

#include "cpu/conv/cache.h"
#include "cpu/conv/memory.h"
#include "cpu/conv/pieces.h"
#include "cpu/conv/segments.h"

namespace fusedres::conv {
namespace {

// Every panel of weights passes over a block of tiles before the next block begins. Weights that stay in L2
// (2 MB on Sapphire Rapids, 1 MB on Zen 4) allow small blocks, which finish their output and residual while
// these are near: 64 -> 256 at 56 x 56 went from 52 to 72 GFLOP/s. Larger weights want L2 for inputs: each
// block reads all of them from L3.
constexpr int64_t kSmallBlock = 160 * 1024;
int64_t small_weights() { return l2_bytes() * 5 / 8; }
int64_t large_block() { return l2_bytes() / 4; }
// By panels each thread reads its weights alone.
constexpr int64_t kSharedWeights = 1280 * 1024;
constexpr int64_t kFewRows = 12;  // of a strip: fewer do not pay for loading the weights' tiles
constexpr int64_t kSharedWeightsOfParts = 1700 * 1024;  // splitting panels, each thread packs all pixels
constexpr int64_t kLargeBlockOfParts = 800 * 1024;  // packed: 1024 -> 512 at 14 x 14 from 92 to 108 GFLOP/s
constexpr int64_t kBlockTiles = 256;
constexpr int64_t kManyPanels = 16;

struct Weights {
  const char* data;
  int64_t bytes;
};

// The weights that the thread of this share will probably read first in the next convolution.
Weights first_weights(const void* next, int64_t chunk, int64_t threads) {
  if (next == nullptr) return {nullptr, 0};
  const PackedHeader& header = packed_header(next);
  const int64_t bytes = panel_bytes(header);
  return {
      packed_data(next) + share_of(header.filter.panels(), chunk, threads).begin * bytes,
      std::min<int64_t>(bytes, 128 * 1024)};
}

// What a thread holds packed, or near where nothing is packed: these tiles of the convolution with this plan.
// It takes several pieces of one convolution, and its tiles need packing once.
struct PackedTiles {
  uint64_t serial = 0;
  char* data = nullptr;
  Range tiles{0, 0};

  bool are(Range wanted) const { return tiles.begin == wanted.begin && tiles.end == wanted.end; }
};
thread_local PackedTiles packed_tiles;

}  // namespace

bool DirectConv::packs_always() const {
  return tiles->packing != nullptr && tiles->packing->worth_panels == 0;
}

bool DirectConv::packs_inputs(int64_t taps, int64_t panels) const {
  const PackedHeader& header = packed_header(packed);
  const InputPacking* packing = tiles->packing;
  if (packing == nullptr || packs_always()) return packing != nullptr;
  const bool all_read_the_same = header.run == packed_channels(header);  // no groups
  return taps == 1 && panels >= packing->worth_panels && all_read_the_same;
}

void DirectConv::pack(const TileCommon& common, const Tile& tile, char* packed_input) const {
  const int64_t bytes = tiles->packing->bytes(common.run);
  for (int64_t tap = 0; tap < common.tap_count; ++tap) {
    const char* strips[kMostStrips];
    for (int64_t strip = 0; strip < tiles->strips; ++strip) strips[strip] = tile.in[strip] + common.taps[tap];
    tiles->packing->pack(strips, common.rows, common.in_step, common.run, packed_input + tap * bytes);
  }
}

// What a tile of so many pixels reads.
int64_t DirectConv::input_bytes(int64_t pixels) const {
  const PackedHeader& header = packed_header(packed);
  if (packs_always()) return header.filter.rows * header.filter.cols * tiles->packing->bytes(header.run);
  return pixels * in.pixel * step_w * step_h;
}

void DirectConv::plan(int64_t for_threads) {
  serial = new_serial();
  threads = for_threads;
  const PackedHeader& header = packed_header(packed);
  const int64_t panels = header.filter.panels();
  const int64_t weights = panels * panel_bytes(header);
  strips_in_step = 1;
  const int64_t fewest_tiles = Segments(*this).tile_count();
  // By pixels a thread reads, in the next convolution, mostly what it wrote in this one, and all weights; by
  // panels it reads all inputs, half of them from the other core's cache. Where the weights stay in L2 pixels
  // win, even with tiles so few that the shares differ (bf16 at 14 x 14: a block from 545 to 510 us).
  split_panels = panels >= threads && (fewest_tiles < threads ||
                                       (weights > (packs_always() ? kSharedWeightsOfParts : kSharedWeights) &&
                                        weights > in.images * in.image));
  // 196 pixels are 7 tiles of up to 32, 4 for one thread and 3 for the other, or 8 of up to 26.
  if (packs_always() && !split_panels) {
    strips_in_step = 2 * threads;
    if (Segments(*this).length < kFewRows) strips_in_step = 1;
  }
  const Segments segments(*this);
  const int64_t tile_count = segments.tile_count(), tile_pixels = segments.strips * segments.length;
  const int64_t tile_bytes = input_bytes(tile_pixels);
  const int64_t written = tile_pixels * out.pixel * (residual.data != nullptr ? 2 : 1);
  const bool small = (split_panels ? weights / threads : weights) <= small_weights();
  const int64_t large = packs_always() ? kLargeBlockOfParts : large_block();
  block =
      std::clamp<int64_t>(small ? kSmallBlock / (tile_bytes + written) : large / tile_bytes, 1, kBlockTiles);
  // Panels of other groups read other channels: nothing to keep for the next panel.
  if (header.run < packed_channels(header)) block = kBlockTiles;
  block = std::clamp<int64_t>(block, 1, std::max<int64_t>(tile_count, 1));
  panel_parts = 1;
  if (threads > 1 && tile_count > 0) cut_for_pieces(tile_count);
}

// Blocks no larger than before, and their panels in parts, so that a share can be cut in eighths.
void DirectConv::cut_for_pieces(int64_t tile_count) {
  const int64_t panels = packed_header(packed).filter.panels();
  if (split_panels) {
    const int64_t blocks = std::max(ceil_div(tile_count, block), parts_of_each(panels / threads, tile_count));
    block = ceil_div(tile_count, blocks);
    return;
  }
  // Who takes over some panels of a block packs it again, which takes about as long as one panel.
  const bool packs = packs_inputs(Taps(*this).count, panels);
  const int64_t own = ceil_div(tile_count, threads);
  const int64_t blocks = std::max<int64_t>(ceil_div(own, block), packs && panels < kManyPanels ? 2 : 1);
  block = ceil_div(own, blocks);
  // Who watches waits for pixels that are complete, all panels of them.
  if (watcher.completed == nullptr) panel_parts = parts_of_each(blocks, panels);
}

int64_t DirectConv::chunks() const { return piece_count(threads); }

// What the tiles of a convolution have in common, and the walk over them.
struct DirectConv::Walk {
  const DirectConv& conv;
  const PackedHeader& header = packed_header(conv.packed);
  const Segments segments{conv};
  const Taps taps{conv};
  const int64_t element = element_size(data_type(static_cast<Algorithm>(header.algorithm)));
  const int64_t panels = header.filter.panels(), weights_of_panel = panel_bytes(header);
  const int64_t tile_count = segments.tile_count();
  const int64_t tile_bytes = segments.strips * segments.length * conv.in.pixel * conv.step_w * conv.step_h;
  TileCommon common;
  int64_t packed_bytes = 0;  // of a tile's inputs; 0: these are read where they lie
  PackedTiles& held = packed_tiles;
  TileKernel kernels[kMostStrips];  // for one strip, two, ...

  explicit Walk(const DirectConv& conv) : conv(conv) {
    common.rows = segments.length;
    common.in_step = conv.in.pixel * conv.step_w;
    common.out_step = conv.out.pixel;
    common.residual_step = conv.residual.pixel;
    common.taps = taps.offsets;
    common.tap_count = taps.count;
    common.run = taps.run;
    common.floor = conv.epilogue.relu ? 0.0f : -std::numeric_limits<float>::infinity();
    common.rounds = conv.epilogue.rounds;
    const bool packs =
        conv.packs_inputs(taps.count, conv.split_panels ? panels / (2 * conv.threads) : panels);
    if (packs) packed_bytes = taps.count * conv.tiles->packing->bytes(taps.run);
    if (held.serial != conv.serial)
      held = {conv.serial, packs ? scratch_memory(packed_bytes * conv.block, Scratch::kInputs) : nullptr, {}};
    const auto kernel = packs ? conv.tiles->packing->kernel : conv.tiles->kernel;
    for (int64_t strips = 1; strips <= segments.strips; ++strips)
      kernels[strips - 1] = kernel(segments.length, strips);
  }

  Weights weights(int64_t panel) const {
    return {packed_data(conv.packed) + panel * weights_of_panel, weights_of_panel};
  }

  // Every panel over every tile, a block of tiles at a time. `after`: weights that this thread will want
  // then.
  void over(Range tiles, Range of_panels, const Weights& after) const {
    Tile list[kBlockTiles];
    const int64_t own_pixels = segments.own_pixels(segments.first_of(tiles.begin));
    for (int64_t from = tiles.begin; from < tiles.end; from += conv.block) {
      const Range now{from, std::min(from + conv.block, tiles.end)};
      for (int64_t t = 0; t < now.size(); ++t) segments.place(conv, from + t, list[t]);
      Panel at;
      for (int64_t p = of_panels.begin; p < of_panels.end; ++p) {
        go_on_to(p, at, list, now.size());
        panel_over(
            list, now, p,
            p + 1 < of_panels.end ? weights(p + 1)
            : now.end < tiles.end ? weights(of_panels.begin)
                                  : after);
      }
      if (!conv.split_panels)
        conv.watcher.tell(
            own_pixels, std::max(own_pixels, segments.pixels_before(segments.first_of(now.begin))),
            segments.pixels_before(segments.first_of(now.end)));
    }
  }

 private:
  // How far into a pixel the tiles' pointers are, in bytes.
  struct Panel {
    int64_t input = 0, output = 0;
  };

  // In place: copying the tiles for every panel took 5% of the time of 64 -> 256 with AVX2. Where inputs are
  // packed in[0] is set anew below.
  void go_on_to(int64_t panel, Panel& at, Tile* list, int64_t count) const {
    const Panel wanted{first_channel(header, panel) * element, panel * kPanel * element};
    for (int64_t t = 0; t < count; ++t)
      for (int64_t strip = 0; strip < segments.strips; ++strip) {
        Tile& tile = list[t];
        tile.in[strip] += wanted.input - at.input;
        tile.out[strip] += wanted.output - at.output;
        if (conv.residual.data != nullptr) tile.residual[strip] += wanted.output - at.output;
      }
    at = wanted;
  }

  void panel_over(Tile* list, Range now, int64_t panel, const Weights& coming) const {
    const int64_t first = panel * kPanel;
    const bool fresh = !held.are(now);
    for (int64_t t = 0; t < now.size(); ++t) {
      Tile& tile = list[t];
      tile.weights = weights(panel).data;
      tile.scale = conv.epilogue.scale + first;
      tile.shift = conv.epilogue.shift + first;
      tile.channels = std::min(kPanel, header.filter.out_channels - first);
      if (fresh && taps.count == 1) {
        // The first panel meets inputs that may lie in L3 (256 -> 64 at 56 x 56: 57 to 77 GFLOP/s).
        tile.ahead = t + 1 < now.size() ? list[t + 1].in[0] : list[t].in[0] + tile_bytes;
        tile.ahead_bytes = tile_bytes;
      } else {
        tile.ahead_bytes = ceil_div(coming.bytes, now.size());
        tile.ahead = coming.data + t * tile.ahead_bytes;
      }
      if (packed_bytes > 0) {
        char* packed_input = held.data + t * packed_bytes;
        if (fresh) conv.pack(common, tile, packed_input);
        tile.in[0] = packed_input;
      }
      kernels[tile.strips - 1](common, tile);
    }
    held.tiles = now;
  }
};

void DirectConv::run(int64_t chunk) const {
  const Walk walk(*this);
  // A grid of cells in the order of the work: blocks of tiles by panels or, where pixels are shared out, by
  // parts of the panels.
  const Range own_panels = split_panels ? share_of(walk.panels, chunk, threads) : Range{0, walk.panels};
  const int64_t cols = split_panels ? own_panels.size() : panel_parts;
  const int64_t cells = ceil_div(walk.tile_count, block) * cols;
  const Range own = split_panels ? Range{0, cells} : share_of(cells, chunk, threads);
  const Weights following = first_weights(next, chunk, threads);
  if (tiles->enter != nullptr) tiles->enter(walk.common);
  visit_cells(piece_of(own, chunk, threads), cols, [&](Range in_rows, Range in_cols) {
    const Range of_panels{
        own_panels.begin + own_panels.size() * in_cols.begin / cols,
        own_panels.begin + own_panels.size() * in_cols.end / cols};
    const bool ends = (in_rows.end - 1) * cols + in_cols.end == own.end;
    const int64_t wanted = of_panels.end < own_panels.end ? of_panels.end : own_panels.begin;
    walk.over(
        {in_rows.begin * block, std::min(in_rows.end * block, walk.tile_count)}, of_panels,
        ends ? following : walk.weights(wanted));
  });
  if (tiles->leave != nullptr) tiles->leave();
}

}  // namespace fusedres::conv
