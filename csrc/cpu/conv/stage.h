// Copies of an input in the form the direct kernels read: with a border of zeros, channels padded with zeros,
// and the distance of pixels such that a tile's rows do not fall into one set of the L1 cache.
#pragma once

#include "cpu/conv/packed.h"
#include "cpu/conv/shape.h"

namespace fusedres::conv {

// What a direct convolution reads, and how a copy of its input lies if it needs one.
struct Staging {
  bool needed = false;
  Map map;  // data null until memory is given
  int64_t bytes = 0;
  int64_t border_h = 0, border_w = 0;
  int64_t take_h = 1, take_w = 1;  // copy every take-th row and column (a strided 1 x 1 reads no others)

  int64_t rows() const { return map.images * map.height; }
};

// A staging for images of `in`'s size; needed at once if another convolution's output is to be `produced`
// there.
Staging plan_staging(const PackedHeader& header, const Map& in, bool produced);

// Copy these of the staging's rows, which are numbered through all images.
void fill_staging(const Staging& staging, const Map& in, int64_t element, Range rows);

// Zero what surrounds `pixels` (see staged_pixels), for a producer that writes the pixels themselves.
void clear_border(const Staging& staging, const Map& pixels, int64_t element, int64_t part, int64_t parts);

// The pixels of a staging without its border, shaped like the input: where a producer writes.
Map staged_pixels(const Staging& staging, const Map& like);

}  // namespace fusedres::conv
