// What tiles of a direct convolution are made of: segments of output pixels, and the offsets of taps.
#pragma once

#include <algorithm>

#include "cpu/conv/direct.h"

namespace fusedres::conv {

// Output pixels cut into segments of equal length, none crossing the end of a row. The last segment of a
// row is moved back to end with it and skips what its neighbour stores, so nothing is read out of bounds.
struct Segments {
  int64_t images, rows, width;  // pixels that lie evenly: a row, or everything if it is dense
  int64_t length, per_row;
  int64_t strips;  // of a tile, at most

  explicit Segments(const DirectConv& conv) {
    const bool even = conv.step_h == 1 && conv.step_w == 1 && conv.in.dense() && conv.out.dense() &&
                      conv.in.width == conv.out.width && conv.in.height == conv.out.height &&
                      (conv.residual.data == nullptr || conv.residual.dense());
    images = even ? 1 : conv.out.images;
    rows = even ? 1 : conv.out.height;
    width = even ? conv.out.images * conv.out.height * conv.out.width : conv.out.width;
    length = ceil_div(width, round_up(ceil_div(width, conv.tiles->max_rows), even ? conv.strips_in_step : 1));
    per_row = ceil_div(width, length);
    strips = conv.tiles->strips;
  }

  int64_t count() const { return images * rows * per_row; }

  // The strips of a tile are segments that follow each other.
  int64_t tile_count() const { return ceil_div(count(), strips); }
  int64_t first_of(int64_t tile) const { return first_of_part(count(), tile, tile_count()); }

  // Output pixels of the lines that end before `segment`; where everything is one line, of the segments.
  int64_t pixels_before(int64_t segment) const {
    if (images * rows == 1) return std::min(segment * length, width);
    return segment / per_row * width;
  }
  // Those before a thread that begins with `segment`, with the line that another one began.
  int64_t own_pixels(int64_t segment) const {
    return pixels_before(images * rows == 1 ? segment : round_up(segment, per_row));
  }

  // A tile's strips; those that it lacks repeat its last.
  void place(const DirectConv& conv, int64_t index, Tile& tile) const {
    const int64_t first = first_of(index);
    tile.strips = first_of(index + 1) - first;
    for (int64_t strip = 0; strip < strips; ++strip)
      place(conv, first + std::min(strip, tile.strips - 1), strip, tile);
  }

 private:
  void place(const DirectConv& conv, int64_t segment, int64_t strip, Tile& tile) const {
    const int64_t row = segment / per_row;
    const int64_t wanted = segment % per_row * length;
    const int64_t x = std::min(wanted, width - length);
    const int64_t n = row / rows, y = row % rows;
    tile.in[strip] = conv.in.at(n, y * conv.step_h, x * conv.step_w);
    tile.out[strip] = conv.out.at(n, y, x);
    tile.residual[strip] = conv.residual.data != nullptr ? conv.residual.at(n, y, x) : nullptr;
    tile.skip[strip] = wanted - x;
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

}  // namespace fusedres::conv
