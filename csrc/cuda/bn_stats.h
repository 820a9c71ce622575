// Per-tile count, mean and M2 of each channel of an activation; a tile is a block's rows.
#pragma once

#include <cstdint>

#include "cuda/common/launch.h"

namespace fusedres::cuda {

template <typename T>
struct BnStatsParams {
  const T* y;
  float *count, *mean, *m2;  // (tiles), (tiles, channels), (tiles, channels)
  int64_t rows, channels;
};

// The grid for `rows` of `channels`; its blocks.x is the number of tiles.
template <typename T>
Grid bn_stats_grid(int64_t rows, int64_t channels, bool aligned, const Target& target);

template <typename T>
void launch_bn_stats(const BnStatsParams<T>& params, const Grid& grid, bool aligned, const Target& target);

}  // namespace fusedres::cuda
