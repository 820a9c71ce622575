// Weights as the kernels read them: a row a result channel, then taps, then source channels.
#pragma once

#include <cstdint>

#include "cuda/common/launch.h"

namespace fusedres::cuda {

// packed (rows, taps, packed_depth): row r holds, from source channel r / block_rows * block_depth on, the
// weights of `block_depth` channels; those of another group, and what lies beyond, are zero. A block is a
// group, or a few narrow groups at once.
struct PackWeightsParams {
  const void* weight;  // (K, C / groups, R, S) with these element strides
  int64_t stride_k, stride_c, stride_r, stride_s;
  void* packed;
  int rows, taps, taps_w, packed_depth;
  int block_rows, block_depth;
  int group_rows, group_depth;  // of the rows and of the source channels
  int flat_channels;            // not 0: a tap is a row of taps, each of so many source channels
  bool gradient;                // rows are C, source channels K; else the other way
};

template <typename T>
void launch_pack_weights(const PackWeightsParams& params, const Target& target);

}  // namespace fusedres::cuda
