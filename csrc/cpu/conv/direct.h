// Direct convolution: walks output pixels and panels of filters with a family of tile kernels.
#pragma once

#include "cpu/conv/packed.h"
#include "cpu/conv/shape.h"
#include "cpu/conv/tile.h"

namespace fusedres::conv {

struct DirectConv {
  const TileFamily* tiles = nullptr;
  const void* packed = nullptr;
  // The input with its border and its channels padded as the weights want them: pixel (0, 0) is the one
  // under the filter's first tap for output (0, 0). See stage.h.
  Map in;
  Map out;
  Map residual;  // data null: none; may be `out` itself
  Epilogue epilogue;
  int64_t step_h = 1, step_w = 1;  // input pixels from one output pixel to the next
  const void* next = nullptr;      // packed weights of what runs after this, whose first ones are prefetched

  Watcher watcher;

  // Do part `part` of `parts`; parts share nothing but read-only data.
  void run(int64_t part, int64_t parts) const;
};

}  // namespace fusedres::conv
