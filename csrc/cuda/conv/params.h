// What the host tells a convolution kernel: plain data, one struct for every kernel of the family.
#pragma once

#include <cstdint>

#include "cuda/conv/fast_division.h"

namespace fusedres::cuda {

// A stride-2 gradient has four classes of pixels, each with taps of its own; all else has one.
constexpr int kMaxClasses = 4;

// Result pixels that share their taps: (i * out_step + out_first) in height and width. A pixel's source at
// tap (a, b) is i * source_step + source_first + a * tap_step, zero outside the source. This is a forward
// convolution with its stride in source_step, and a gradient with its stride in out_step.
struct PixelClass {
  int rows, columns;  // of the grid (i, j)
  int pixels;         // batch * rows * columns, fewer than 2^31
  int first_tile;     // how many tiles the classes before this one have
  int out_first_h, out_first_w;
  int source_first_h, source_first_w;
  int taps_h, taps_w;
  int tap_step_h, tap_step_w;
  int weight_first, weight_step_h, weight_step_w;  // the tap's number in the weights
  FastDivision by_columns, by_image;
};

// How the source is formed as it is loaded: relu(source * scale + shift), or
// source * scale + shift + other * other_scale. Padding stays zero.
struct PrologueParams {
  const float* scale;
  const float* shift;  // null: 0
  const float* other_scale;
  const void* other;
};

// out = relu(value * scale + shift + add); what is absent is null.
struct AffineParams {
  const float* scale;
  const float* shift;
  bool relu;
};

// Per tile and channel of the stored result: (tiles), (tiles, channels), (tiles, channels).
struct MomentParams {
  float* count;
  float* mean;
  float* m2;
};

// What masks a gradient, and its sums a tile, (2 * tiles, channels): of dz and of dz * x_hat.
struct MaskParams {
  const void* y;
  const float* scale;  // null: y is an activation, and y > 0 the mask
  const float* shift;
  const float* mean;
  const float* invstd;  // null: the sum of dz * x_hat is not asked for, and 0
  float* sums;
};

// A patch in shared memory (see patch_source.cuh) serves one phase of the taps: all of them at stride 1. At
// stride 2 a tap reads every second row and column, and phases are two: taps whose row and column have the
// same parity, and the rest. While the taps of one phase are multiplied, all but the last kPatchStages - 2 of
// them each bring patch_slots_per_tap(stride) slots of the next phase's patch.
constexpr int kSlotChunks = 4;
constexpr int kSlotBytes = 16 * kSlotChunks;
constexpr int kPatchStages = 3;  // of the ring of weights
constexpr int kMaxPatchTaps = 9;

// 512 slots in the 8 taps of a 3x3 that bring some; at stride 2, 576 in 3 of the shorter phase's 4.
constexpr int patch_slots_per_tap(int step) { return step == 1 ? 64 : 192; }

// In slots. Taps are numbered as they are walked, phase by phase.
struct PatchParams {
  int step;                          // source_step, which is also how many phases there are
  int half;                          // of a row's slots: what a row of the source fills at most
  int pitch;                         // of a row: `step` rows of the source
  int gap;                           // of an image's slots: what its halo takes beyond its result rows
  int slots;                         // of a phase's patch at most
  int first_phase_taps;              // the other phase has the rest
  uint32_t tap_word[kMaxPatchTaps];  // from the first tap to this one
  int weight_jump[kMaxPatchTaps];    // values of a weight row to the next tap
  int weight_back;                   // from the last to the first
};

// Whether a gradient's kernels turn the weights as they load fragments: ldmatrix turns 16-bit values alone.
constexpr bool turns_weights(int element_bytes) { return element_bytes == 2; }

struct ConvParams {
  const void* source;  // (batch, source_h, source_w, source_channels)
  // (groups * columns, taps, weight_depth), of which the first `depth` are read; turned: (groups * depth,
  // taps, weight_depth), of which the first `columns` are
  const void* weight;
  const void* add;  // like out, or null
  void* out;        // (batch, out_h, out_w, out_channels)
  float* partial;   // (splits, pixels of all classes, out_channels) where splits > 1

  int source_h, source_w, source_channels;
  int out_h, out_w, out_channels;
  int depth;         // source channels of a group: the reduction
  int columns;       // result channels of a group
  int taps;          // of the weights, R * S
  int weight_depth;  // depth, or turned columns, rounded up to whole 16-byte chunks
  int source_step_h, source_step_w, out_step_h, out_step_w;
  int tiles_n;  // tiles of a group's columns
  int splits;
  bool flat;         // a row of taps is one: its pixels' channels, which lie behind each other, are its depth
  bool aligned_out;  // rows of the result are whole 16-byte chunks on 16-byte addresses
  int classes;
  PixelClass pixel_class[kMaxClasses];

  PrologueParams prologue;
  AffineParams affine;
  MomentParams moments;
  MaskParams mask;
  PatchParams patch;
};

// Of a patch kernel: the table of slots and `patches` buffers, then the ring of weights; or the results in
// fp32. There are two buffers: of two phases each has its own, one phase takes them in turn.
constexpr int patch_shared_bytes(int slots, int step, int patches, int tile_m, int tile_n) {
  const int pipeline = slots * (step * static_cast<int>(sizeof(int)) + patches * kSlotBytes) +
                       kPatchStages * tile_n * kSlotBytes;
  const int results = tile_m * tile_n * static_cast<int>(sizeof(float));
  return pipeline > results ? pipeline : results;
}

}  // namespace fusedres::cuda
