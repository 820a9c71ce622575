// How threads cover an activation, which is `rows` = N * H * W rows of `channels` values.
//
// A block is `width` threads across channels by `height` across rows. A thread keeps its channels, so that a
// channel's parameters stay in registers and its sums need no other thread until the end, and walks over
// rows.
#pragma once

#include <algorithm>

#include "cuda/common/launch.h"

namespace fusedres::cuda {

constexpr int kRowThreads = 256;

// Blocks for threads of `vec` values each. Neighbours in a warp read neighbouring bytes: rows are dense, so
// where one has fewer vectors than a warp has threads, the warp goes on in the next row.
//   most_width: 256 for a pointwise kernel, 32 (512 bytes, whole cache lines) for one that sums over rows:
//   the fewer blocks share a channel, the less there is to merge.
inline Grid row_grid(
    int64_t rows, int64_t channels, int vec, int most_width, int blocks_a_processor, const Target& target) {
  const int64_t across = ceil_div<int64_t>(channels, vec);
  const int64_t groups = ceil_div<int64_t>(across, most_width);
  const int width = static_cast<int>(ceil_div(across, std::max<int64_t>(groups, 1)));
  if (rows == 0 || width == 0) return {dim3(0), dim3(0)};
  const int height = kRowThreads / width;
  const int64_t at_once =
      std::max<int64_t>(int64_t{blocks_a_processor} * target.device.processors / groups, 1);
  const int64_t down = std::min(ceil_div<int64_t>(rows, height), at_once);
  return {
      dim3(static_cast<unsigned>(down), static_cast<unsigned>(groups)),
      dim3(static_cast<unsigned>(width), static_cast<unsigned>(height))};
}

#if defined(__CUDACC__)

// Where this thread starts and how it walks; `active` is false for threads beyond the last channel.
struct RowWalk {
  int64_t row, step, channel;
  bool active;

  __device__ RowWalk(int64_t channels, int vec)
      : row(static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y),
        step(static_cast<int64_t>(gridDim.x) * blockDim.y),
        channel((static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x) * vec),
        active(channel < channels) {}
};

#endif

}  // namespace fusedres::cuda
