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

  // From plan(): whether the threads share out panels or pixels, and how many tiles of pixels every panel
  // passes over before the next ones.
  int64_t threads = 1;
  bool split_panels = false;
  int64_t block = 1;
  // A dense map is cut for a multiple of so many strips, as far as these come out equal.
  int64_t strips_in_step = 1;
  // Where pixels are shared out: parts into which the panels of a block can be cut.
  int64_t panel_parts = 1;
  uint64_t serial = 0;  // of this plan; no other has it

  // Choose for so many threads; needs everything above but `next`.
  void plan(int64_t for_threads);
  int64_t chunks() const;
  // Do one chunk. Chunks share nothing but read-only data; a thread keeps the tiles it has packed for its
  // next one, under the plan's serial.
  void run(int64_t chunk) const;

 private:
  struct Walk;
  void cut_for_pieces(int64_t tile_count);
  bool packs_always() const;
  bool packs_inputs(int64_t taps, int64_t panels) const;
  int64_t input_bytes(int64_t pixels) const;
  void pack(const TileCommon& common, const Tile& tile, char* packed_input) const;
};

}  // namespace fusedres::conv
