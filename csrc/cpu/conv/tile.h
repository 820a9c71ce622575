// The one inner kernel: a few output pixels by 32 filters, all sums in registers.
//
// A tile is a few strips of up to TileFamily::max_rows pixels each. Inside a strip the pixels lie `in_step`
// bytes apart; the strips start anywhere. AVX-512 takes two strips of 7: by two vectors they are 28 of its 32
// registers, and 7 divides every row of a ResNet (112, 56, 28, 14, 7). Where there are 16 registers a tile is
// six pixels, each a strip of its own: nothing divides the rows, and nothing need.
#pragma once

#include <cstdint>

#include "cpu/conv/shape.h"

namespace fusedres::conv {

// What every tile of a convolution has in common.
struct TileCommon {
  int64_t rows = 0;               // pixels of a strip
  int64_t in_step = 0;            // bytes from a pixel's input to the next pixel's
  int64_t out_step = 0;           // the same of the output
  int64_t residual_step = 0;      // and of the residual
  const int64_t* taps = nullptr;  // byte offsets of the filter's taps from the pixel's input
  int64_t tap_count = 0;
  int64_t run = 0;      // consecutive input values of one tap
  float floor = 0;      // 0 with ReLU, -infinity without
  bool rounds = false;  // fp32 outputs to bf16's values
};

constexpr int kMostStrips = 6;
// Pixels of a tile, at most.
constexpr int64_t kMostTileRows = 32;

struct Tile {
  int64_t strips;
  const char* in[kMostStrips];
  char* out[kMostStrips];
  const char* residual[kMostStrips];  // null: none
  int64_t skip[kMostStrips];          // leading pixels that a neighbour stores: computed, not stored
  const char* weights;                // of the panel
  const float* scale;                 // 32 values each
  const float* shift;
  int64_t channels;  // filters to store, 1 to 32
  // What will be wanted next (a panel's weights, a tile's input), prefetched while this tile computes: at
  // an even pace, since a burst would wait for a core's 16 outstanding misses.
  const char* ahead;
  int64_t ahead_bytes;
};

using TileKernel = void (*)(const TileCommon&, const Tile&);

// Inputs that many panels read, in an order of the kernels' own. tile.in[0] is then what `pack` wrote.
struct InputPacking {
  int64_t worth_panels;  // fewest panels that pay for packing; 0: the family has no other kernels
  int64_t (*bytes)(int64_t run);
  // Pack `run` values of each of the `rows` pixels of each strip; a strip's pixels lie `step` bytes apart.
  // All of the family's strips are packed: a tile that has fewer repeats one.
  void (*pack)(const char* const* strips, int64_t rows, int64_t step, int64_t run, char* out);
  TileKernel (*kernel)(int64_t rows, int64_t strips);
};

// The tile kernels of one algorithm on one instruction set.
struct TileFamily {
  int64_t strips;       // of a tile, at most
  int64_t max_rows;     // of a strip
  int64_t pass;         // filters whose weights lie side by side: a panel's 32, or fewer
  int64_t input_group;  // values of a step: the run is a multiple of this, or packing fills up the last step
  // The kernel for strips of `rows` pixels, 1 to max_rows, and so many of them.
  TileKernel (*kernel)(int64_t rows, int64_t strips);
  // Called by each thread before and after its tiles; may be null (AMX sets up its tile registers).
  void (*enter)(const TileCommon&);
  void (*leave)();
  const InputPacking* packing = nullptr;  // null: this family has none
  bool can_round = false;  // as TileCommon::rounds asks: fp32's tiles of AVX2 and the portable ones
};

extern const TileFamily kTilesF32Portable, kTilesBf16Portable, kTilesGroupsPortable;
extern const TileFamily kTilesF32Avx2, kTilesBf16Avx2, kTilesGroupsAvx2;
extern const TileFamily kTilesGroupsAvx512;
extern const TileFamily kTilesF32Avx512;
extern const TileFamily kTilesBf16Avx512, kTilesProductsBf16Avx512;
extern const TileFamily kTilesBf16Amx;
extern const TileFamily kTilesF32Amx, kTiles2F32Amx;

}  // namespace fusedres::conv
