// The one inner kernel: a few output pixels by 32 filters, all sums in registers.
//
// A tile is two runs ("halves") of up to kTileRows pixels each. Inside a half the pixels lie `in_step` bytes
// apart; the halves start anywhere. Two halves of 7 rows by two vectors are 28 of AVX-512's 32 registers,
// and 7 divides every row of a ResNet (112, 56, 28, 14, 7).
#pragma once

#include <cstdint>

namespace fusedres::conv {

// What every tile of a convolution has in common.
struct TileCommon {
  int64_t rows = 0;               // pixels of a half
  int64_t in_step = 0;            // bytes from a pixel's input to the next pixel's
  int64_t out_step = 0;           // the same of the output
  int64_t residual_step = 0;      // and of the residual
  const int64_t* taps = nullptr;  // byte offsets of the filter's taps from the pixel's input
  int64_t tap_count = 0;
  int64_t run = 0;  // consecutive input values of one tap
  float floor = 0;  // 0 with ReLU, -infinity without
};

struct Tile {
  const char* in[2];
  char* out[2];
  const char* residual[2];  // null: none
  int64_t skip[2];          // leading pixels that a neighbour stores: computed, not stored
  const char* weights;      // of the panel
  const float* scale;       // 32 values each
  const float* shift;
  int64_t channels;  // filters to store, 1 to 32
  // What will be wanted next (a panel's weights, a tile's input), prefetched while this tile computes: at
  // an even pace, since a burst would wait for a core's 16 outstanding misses.
  const char* ahead;
  int64_t ahead_bytes;
};

// Pixels of a packed line: 14 and two that nobody reads.
constexpr int64_t kPackedRows = 16;
// Packing takes as long as a fifth of a panel's products. These gain 1% on a core that is alone, and 7 to 17%
// where its other hyperthread works: with 4 panels (512 -> 128) 7% is lost in the one state, none gained in
// the other.
constexpr int64_t kPanelsWorthPacking = 8;

using TileKernel = void (*)(const TileCommon&, const Tile&);

// The tile kernels of one algorithm on one instruction set.
struct TileFamily {
  int64_t max_rows;     // of a half
  int64_t input_group;  // the run is a multiple of this
  // The kernel for `rows` pixels a half (1 to max_rows) and 1 or 2 halves.
  TileKernel (*kernel)(int64_t rows, int64_t halves);
  // Called by each thread before and after its tiles; may be null (AMX sets up its tile registers).
  void (*enter)(const TileCommon&);
  void (*leave)();
  // For inputs that many panels read, packed: of each value in a run the pixels of both halves side by side,
  // kPackedRows of them. tile.in[0] is then what pack_rows wrote. Null: this family has none.
  TileKernel (*packed_kernel)(int64_t rows, int64_t halves) = nullptr;
  void (*pack_rows)(const float* const* rows, int64_t run, float* out) = nullptr;
};

extern const TileFamily kTilesF32Portable, kTilesBf16Portable, kTilesGroupsPortable;
extern const TileFamily kTilesF32Avx2, kTilesBf16Avx2, kTilesGroupsAvx2;
extern const TileFamily kTilesGroupsAvx512;
extern const TileFamily kTilesF32Avx512;
extern const TileFamily kTilesBf16Avx512;
extern const TileFamily kTilesBf16Amx;

}  // namespace fusedres::conv
