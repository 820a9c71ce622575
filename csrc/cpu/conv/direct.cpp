#include "cpu/conv/direct.h"

#include <algorithm>
#include <limits>

#include "cpu/conv/memory.h"

namespace fusedres::conv {
namespace {

// Every panel of weights passes over a block of tiles before the next block begins. Weights that stay in L2
// (2 MB on Sapphire Rapids, 1 MB on Zen 4) allow small blocks, which finish their output and residual while
// these are near: 64 -> 256 at 56 x 56 went from 52 to 72 GFLOP/s. Larger weights want all of L2 for inputs.
constexpr int64_t kSmallWeights = 1300 * 1024;
constexpr int64_t kSmallBlock = 160 * 1024;
constexpr int64_t kLargeBlock = 512 * 1024;
constexpr int64_t kFewRows = 12;  // of a half: fewer do not pay for loading the weights' tiles
constexpr int64_t kSharedWeightsOfParts = 1700 * 1024;  // splitting panels, each thread packs all pixels
constexpr int64_t kLargeBlockOfParts = 800 * 1024;  // packed: 1024 -> 512 at 14 x 14 from 92 to 108 GFLOP/s
constexpr int64_t kBlockTiles = 256;

// Output pixels cut into segments of equal length, none crossing the end of a row. The last segment of a
// row is moved back to end with it and skips what its neighbour stores, so nothing is read out of bounds.
struct Segments {
  int64_t images, rows, width;  // pixels that lie evenly: a row, or everything if it is dense
  int64_t length, per_row;

  Segments(const DirectConv& conv, int64_t max_rows) {
    const bool even = conv.step_h == 1 && conv.step_w == 1 && conv.in.dense() && conv.out.dense() &&
                      conv.in.width == conv.out.width && conv.in.height == conv.out.height &&
                      (conv.residual.data == nullptr || conv.residual.dense());
    images = even ? 1 : conv.out.images;
    rows = even ? 1 : conv.out.height;
    width = even ? conv.out.images * conv.out.height * conv.out.width : conv.out.width;
    length = ceil_div(width, round_up(ceil_div(width, max_rows), even ? conv.halves_in_step : 1));
    per_row = ceil_div(width, length);
  }

  int64_t count() const { return images * rows * per_row; }

  // Output pixels of the lines that end before `segment`; where everything is one line, of the segments.
  int64_t pixels_before(int64_t segment) const {
    if (images * rows == 1) return std::min(segment * length, width);
    return segment / per_row * width;
  }
  // Those before a thread that begins with `segment`, with the line that another one began.
  int64_t own_pixels(int64_t segment) const {
    return pixels_before(images * rows == 1 ? segment : round_up(segment, per_row));
  }

  void place(const DirectConv& conv, int64_t segment, int half, Tile& tile) const {
    const int64_t row = segment / per_row;
    const int64_t wanted = segment % per_row * length;
    const int64_t x = std::min(wanted, width - length);
    const int64_t n = row / rows, y = row % rows;
    tile.in[half] = conv.in.at(n, y * conv.step_h, x * conv.step_w);
    tile.out[half] = conv.out.at(n, y, x);
    tile.residual[half] = conv.residual.data != nullptr ? conv.residual.at(n, y, x) : nullptr;
    tile.skip[half] = wanted - x;
  }
};

// Offsets of the filter's taps from the input of a pixel.
struct Taps {
  int64_t offsets[kMostTaps];
  int64_t count = 0, run = 0;

  explicit Taps(const DirectConv& conv) {
    const PackedHeader& header = packed_header(conv.packed);
    const Filter& filter = header.filter;
    const int64_t element = element_size(data_type(static_cast<Algorithm>(header.algorithm)));
    const int64_t channels = header.run;
    // Where pixels touch, the columns of a filter's row are one run: fewer, longer taps.
    const bool merged = conv.in.pixel == channels * element && filter.dilation_w == 1 &&
                        (merges_columns(header) || conv.tiles->input_group == 1);
    const int64_t cols = merged ? 1 : filter.cols;
    run = merged ? filter.cols * channels : channels;
    for (int64_t r = 0; r < filter.rows; ++r)
      for (int64_t s = 0; s < cols; ++s) {
        offsets[count++] = r * filter.dilation_h * conv.in.row + s * filter.dilation_w * conv.in.pixel;
      }
  }
};

struct Weights {
  const char* data;
  int64_t bytes;
};

// The weights that the thread of this chunk will probably read first in the next convolution.
Weights first_weights(const void* next, int64_t chunk, int64_t chunks) {
  if (next == nullptr) return {nullptr, 0};
  const PackedHeader& header = packed_header(next);
  const int64_t bytes = panel_bytes(header);
  return {
      packed_data(next) + share(header.filter.panels(), chunk, chunks).begin * bytes,
      std::min<int64_t>(bytes, 128 * 1024)};
}

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
    const char* const halves[2] = {tile.in[0] + common.taps[tap], tile.in[1] + common.taps[tap]};
    tiles->packing->pack(halves, common.rows, common.in_step, common.run, packed_input + tap * bytes);
  }
}

// What a tile of so many pixels reads.
int64_t DirectConv::input_bytes(int64_t pixels) const {
  const PackedHeader& header = packed_header(packed);
  if (packs_always()) return header.filter.rows * header.filter.cols * tiles->packing->bytes(header.run);
  return pixels * in.pixel * step_w * step_h;
}

void DirectConv::plan(int64_t threads) {
  const PackedHeader& header = packed_header(packed);
  const int64_t panels = header.filter.panels();
  const int64_t weights = panels * panel_bytes(header);
  halves_in_step = 1;
  const int64_t fewest_tiles = ceil_div(Segments(*this, tiles->max_rows).count(), 2);
  // By pixels a thread reads, in the next convolution, mostly what it wrote in this one, and all weights; by
  // panels it reads all inputs, half of them from the other core's cache. Where the weights stay in L2 pixels
  // win, even with tiles so few that the shares differ (bf16 at 14 x 14: a block from 545 to 510 us).
  split_panels = panels >= threads && (fewest_tiles < threads ||
                                       (weights > (packs_always() ? kSharedWeightsOfParts : kSmallWeights) &&
                                        weights > in.images * in.image));
  // 196 pixels are 7 tiles of up to 32, 4 for one thread and 3 for the other, or 8 of up to 26.
  if (packs_always() && !split_panels) {
    halves_in_step = 2 * threads;
    if (Segments(*this, tiles->max_rows).length < kFewRows) halves_in_step = 1;
  }
  const Segments segments(*this, tiles->max_rows);
  const int64_t tile_count = ceil_div(segments.count(), 2);
  const int64_t tile_bytes = input_bytes(2 * segments.length);
  const int64_t written = 2 * segments.length * out.pixel * (residual.data != nullptr ? 2 : 1);
  const bool small = (split_panels ? weights / threads : weights) <= kSmallWeights;
  const int64_t large = packs_always() ? kLargeBlockOfParts : kLargeBlock;
  block =
      std::clamp<int64_t>(small ? kSmallBlock / (tile_bytes + written) : large / tile_bytes, 1, kBlockTiles);
  // Panels of other groups read other channels: nothing to keep for the next panel.
  if (header.run < packed_channels(header)) block = kBlockTiles;
  // A chunk of less than a block would read the weights more often.
  const int64_t most = split_panels ? panels : tile_count / block;
  chunks_of_share = threads == 1 ? 1 : std::clamp<int64_t>(most / threads, 1, kChunksOfThread);
  chunks = std::min(threads * chunks_of_share, split_panels ? panels : tile_count);
}

void DirectConv::run(int64_t chunk) const {
  const PackedHeader& header = packed_header(packed);
  const Segments segments(*this, tiles->max_rows);
  const Taps taps(*this);
  const int64_t element = element_size(data_type(static_cast<Algorithm>(header.algorithm)));
  const int64_t weights_of_panel = panel_bytes(header);
  const int64_t panels = header.filter.panels();
  const int64_t tile_count = ceil_div(segments.count(), 2);
  const Range own_tiles = split_panels ? Range{0, tile_count} : share(tile_count, chunk, chunks);
  const Range own_panels = split_panels ? share(panels, chunk, chunks) : Range{0, panels};

  // The thread goes on to the next chunk's panels.
  const bool shared_out = split_panels && (chunk + 1) % chunks_of_share != 0;

  TileCommon common;
  common.rows = segments.length;
  common.in_step = in.pixel * step_w;
  common.out_step = out.pixel;
  common.residual_step = residual.pixel;
  common.taps = taps.offsets;
  common.tap_count = taps.count;
  common.run = taps.run;
  common.floor = epilogue.relu ? 0.0f : -std::numeric_limits<float>::infinity();
  const bool packs = packs_inputs(taps.count, own_panels.end - own_panels.begin);
  const int64_t packed_bytes = packs ? taps.count * tiles->packing->bytes(taps.run) : 0;
  char* packed_inputs =
      packs
          ? scratch_memory(packed_bytes * std::min(block, own_tiles.end - own_tiles.begin), Scratch::kInputs)
          : nullptr;
  const auto kernel = packs ? tiles->packing->kernel : tiles->kernel;
  const TileKernel kernels[2] = {kernel(segments.length, 1), kernel(segments.length, 2)};

  if (tiles->enter != nullptr) tiles->enter(common);
  const int64_t tile_bytes = 2 * segments.length * in.pixel * step_w * step_h;
  const int64_t own_pixels = segments.own_pixels(2 * own_tiles.begin);
  Tile list[kBlockTiles];
  for (int64_t from = own_tiles.begin; from < own_tiles.end; from += block) {
    const int64_t in_block = std::min(block, own_tiles.end - from);
    for (int64_t t = 0; t < in_block; ++t)
      for (int half = 0; half < 2; ++half)
        segments.place(*this, std::min(2 * (from + t) + half, segments.count() - 1), half, list[t]);
    const bool odd_end = 2 * (from + in_block) > segments.count();

    for (int64_t p = own_panels.begin; p < own_panels.end; ++p) {
      const char* weights = packed_data(packed) + p * weights_of_panel;
      const int64_t first = p * kPanel, input = first_channel(header, p) * element;
      const bool continues = p + 1 < (shared_out ? panels : own_panels.end);
      const Weights coming = continues ? Weights{weights + weights_of_panel, weights_of_panel}
                                       : first_weights(next, chunk, chunks);
      for (int64_t t = 0; t < in_block; ++t) {
        Tile tile = list[t];
        for (int half = 0; half < 2; ++half) {
          tile.in[half] += input;
          tile.out[half] += first * element;
          if (tile.residual[half] != nullptr) tile.residual[half] += first * element;
        }
        tile.weights = weights;
        tile.scale = epilogue.scale + first;
        tile.shift = epilogue.shift + first;
        tile.channels = std::min(kPanel, header.filter.out_channels - first);
        if (p == own_panels.begin && taps.count == 1) {
          // The first panel meets inputs that may lie in L3 (256 -> 64 at 56 x 56: 57 to 77 GFLOP/s).
          tile.ahead = t + 1 < in_block ? list[t + 1].in[0] : list[t].in[0] + tile_bytes;
          tile.ahead_bytes = tile_bytes;
        } else {
          tile.ahead_bytes = ceil_div(coming.bytes, in_block);
          tile.ahead = coming.data + t * tile.ahead_bytes;
        }
        const int pair = odd_end && t + 1 == in_block ? 0 : 1;
        if (packs) {
          char* packed_input = packed_inputs + t * packed_bytes;
          if (p == own_panels.begin) pack(common, tile, packed_input);
          tile.in[0] = packed_input;
        }
        kernels[pair](common, tile);
      }
    }
    if (!split_panels)
      watcher.tell(
          own_pixels, std::max(own_pixels, segments.pixels_before(2 * from)),
          segments.pixels_before(std::min(2 * (from + in_block), segments.count())));
  }
  if (tiles->leave != nullptr) tiles->leave();
}

}  // namespace fusedres::conv
