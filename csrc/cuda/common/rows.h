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

// Threads across channels at most: a warp's 512 bytes of a row are whole cache lines, and the fewer blocks
// share a channel, the fewer sums there are to merge.
constexpr int kMostWidth = 32;

// Values in a 16-byte access.
template <typename T>
constexpr int kVec = 16 / static_cast<int>(sizeof(T));

// Values of a thread's access: 16 bytes, or one value where a row, or anything else, does not start on 16.
template <typename T>
constexpr int values_of(int64_t channels, bool aligned) {
  return aligned && channels % kVec<T> == 0 ? kVec<T> : 1;
}

// How a kernel wants its threads laid out.
//   values: of a thread's access, kVec or 1.
//   rows_a_thread: at least, where there are as many.
struct RowLayout {
  int values, rows_a_thread, blocks_a_processor;
};

// Every access is independent: as many threads as a processor holds, each two rows at a time.
constexpr RowLayout pointwise_layout(int values) { return {values, 2, 8}; }

// Neighbours in a warp read neighbouring bytes: rows are dense, so where one has fewer vectors than a warp
// has threads, the warp goes on in the next row.
inline Grid row_grid(int64_t rows, int64_t channels, const RowLayout& layout, const Target& target) {
  const int64_t across = ceil_div<int64_t>(channels, layout.values);
  const int64_t groups = ceil_div<int64_t>(across, kMostWidth);
  if (rows == 0 || across == 0) return {dim3(0), dim3(0)};
  const int width = static_cast<int>(ceil_div(across, groups)), height = kRowThreads / width;
  const int64_t at_once =
      std::max<int64_t>(int64_t{layout.blocks_a_processor} * target.device.processors / groups, 1);
  const int64_t down = std::min(ceil_div<int64_t>(rows, int64_t{height} * layout.rows_a_thread), at_once);
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

// body(kRows rows from `row`, each a step apart) as often as there are so many, then body(1 row) for the
// rest: the loads of a group are in flight together.
template <int kRows, typename Body>
__device__ __forceinline__ void for_row_groups(const RowWalk& walk, int64_t rows, Body&& body) {
  if (!walk.active) return;
  int64_t row = walk.row;
  for (; row + (kRows - 1) * walk.step < rows; row += kRows * walk.step)
    body(std::integral_constant<int, kRows>{}, row);
  for (; row < rows; row += walk.step) body(std::integral_constant<int, 1>{}, row);
}

#endif

}  // namespace fusedres::cuda
