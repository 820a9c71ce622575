#include "cpu/conv/stage.h"

#include <algorithm>
#include <cstring>

namespace fusedres::conv {
namespace {

// Lines 4096 bytes apart share one of an L1's 64 sets, whose 12 ways a tile's 14 rows overflow: each
// broadcast then misses (1 x 1 with 1024 fp32 channels: 75% of peak instead of 97%).
bool rows_collide(int64_t step) { return step % 4096 == 0; }

}  // namespace

Staging plan_staging(const PackedHeader& header, const Map& in, bool produced) {
  const Filter& filter = header.filter;
  const int64_t element = element_size(data_type(static_cast<Algorithm>(header.algorithm)));
  const int64_t channels = packed_channels(header);
  Staging staging;
  const bool strided_pointwise =
      !produced && filter.pointwise() && (filter.stride_h > 1 || filter.stride_w > 1);
  // Inputs in parts are gathered row by row.
  const bool collides =
      parts_of(static_cast<Algorithm>(header.algorithm)) == 0 && rows_collide(in.pixel * filter.stride_w);
  const bool padded = filter.pad_h > 0 || filter.pad_w > 0 || filter.behind_h > 0 || filter.behind_w > 0;
  staging.needed = produced || padded || channels != in.channels || collides;
  if (!staging.needed) return staging;
  if (strided_pointwise) {
    staging.take_h = filter.stride_h;
    staging.take_w = filter.stride_w;
  }
  staging.border_h = filter.pad_h;
  staging.border_w = filter.pad_w;
  const int64_t p = filter.out_height(in.height), q = filter.out_width(in.width);
  Map& map = staging.map;
  map.images = in.images;
  map.channels = channels;
  map.height = strided_pointwise
                   ? p
                   : std::max((p - 1) * filter.stride_h + filter.extent_h(), in.height + filter.pad_h);
  map.width = strided_pointwise
                  ? q
                  : std::max((q - 1) * filter.stride_w + filter.extent_w(), in.width + filter.pad_w);
  map.pixel = channels * element;
  // One line more than a power of two; a stem's few channels stay dense, so that columns merge into runs.
  if (map.pixel % 256 == 0) map.pixel += 64;
  map.row = map.width * map.pixel;
  map.image = map.height * map.row;
  staging.bytes = map.images * map.image;
  return staging;
}

void fill_staging(const Staging& staging, const Map& in, int64_t element, Range rows) {
  const Map& to = staging.map;
  const int64_t valid = in.channels * element, wanted = to.channels * element;
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const int64_t n = row / to.height, y = row % to.height;
    char* line = to.at(n, y, 0);
    const int64_t from_y = (y - staging.border_h) * staging.take_h;
    if (from_y < 0 || from_y >= in.height) {
      std::memset(line, 0, to.row);
      continue;
    }
    const int64_t pixels = std::min(to.width - staging.border_w, ceil_div(in.width, staging.take_w));
    const char* from = in.at(n, from_y, 0);
    char* first = line + staging.border_w * to.pixel;
    std::memset(line, 0, first - line);
    if (valid == to.pixel && in.pixel * staging.take_w == valid) {
      std::memcpy(first, from, pixels * valid);
    } else {
      for (int64_t x = 0; x < pixels; ++x) {
        char* pixel = first + x * to.pixel;
        std::memcpy(pixel, from + x * staging.take_w * in.pixel, valid);
        if (wanted > valid) std::memset(pixel + valid, 0, wanted - valid);
      }
    }
    char* last = first + pixels * to.pixel;
    std::memset(last, 0, line + to.row - last);
  }
}

void clear_border(const Staging& staging, const Map& pixels, int64_t element, int64_t part, int64_t parts) {
  const Map& to = staging.map;
  const int64_t valid = pixels.channels * element, wanted = to.channels * element;
  const Range rows = share(to.images * to.height, part, parts);
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const int64_t y = row % to.height - staging.border_h;
    char* line = to.at(row / to.height, row % to.height, 0);
    if (y < 0 || y >= pixels.height) {
      std::memset(line, 0, to.row);
      continue;
    }
    char* first = line + staging.border_w * to.pixel;
    char* last = first + pixels.width * to.pixel;
    std::memset(line, 0, first - line);
    std::memset(last, 0, line + to.row - last);
    if (wanted > valid)
      for (char* pixel = first; pixel < last; pixel += to.pixel)
        std::memset(pixel + valid, 0, wanted - valid);
  }
}

Map staged_pixels(const Staging& staging, const Map& like) {
  Map pixels = staging.map;
  pixels.data = staging.map.at(0, staging.border_h, staging.border_w);
  pixels.height = like.height;
  pixels.width = like.width;
  pixels.channels = like.channels;
  return pixels;
}

}  // namespace fusedres::conv
