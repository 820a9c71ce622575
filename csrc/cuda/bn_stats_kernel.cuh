#pragma once

#include "cuda/bn_stats.h"
#include "cuda/common/reduce.cuh"

namespace fusedres::cuda {

// Rows that a thread loads before it computes: 8 x 16 bytes in flight, and their merge costs half of their
// sums.
constexpr int kStatsRows = 8;

// Count, mean and M2 of kRows rows, from sums of distances to the first of them: exactly 0 in a constant
// channel. The first row is one of those whose spread M2 is, so the subtraction costs M2 at most a factor of
// kRows (3 bits).
template <int kRows, typename T, int kN>
__device__ __forceinline__ Moments<kN> moments_of(const Pack<T, kN> (&rows)[kRows]) {
  Moments<kN> out;
  out.count = kRows;
#pragma unroll
  for (int i = 0; i < kN; ++i) {
    const float origin = to_float(rows[0].v[i]);
    float sum = 0.0f, square = 0.0f;
#pragma unroll
    for (int r = 1; r < kRows; ++r) {
      const float distance = to_float(rows[r].v[i]) - origin;
      sum += distance;
      square += distance * distance;
    }
    const float step = sum * (1.0f / kRows), m2 = square - sum * step;
    out.mean[i] = origin + step;
    out.m2[i] = m2 < 0.0f ? 0.0f : m2;
  }
  return out;
}

template <typename T, int kN>
__global__ void __launch_bounds__(kRowThreads, 2) bn_stats_kernel(const BnStatsParams<T> k) {
  __shared__ Moments<kN> scratch[kRowThreads];
  const RowWalk walk(k.channels, kN);
  Moments<kN> total = Moments<kN>::none();
  for_row_groups<kStatsRows>(walk, k.rows, [&](auto count, int64_t row) {
    constexpr int kRows = decltype(count)::value;
    const T* y = k.y + row * k.channels + walk.channel;
    Pack<T, kN> rows[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) rows[r] = load_pack<T, kN>(y + r * walk.step * k.channels);
    total.merge(moments_of(rows));
  });
  fold_rows(total, scratch, [](Moments<kN>& mine, const Moments<kN>& theirs) { mine.merge(theirs); });
  const int64_t at = blockIdx.x * k.channels;
  store_vector(walk, k.channels, total.mean, k.mean + at);
  store_vector(walk, k.channels, total.m2, k.m2 + at);
  if (threadIdx.y == 0 && walk.channel == 0) k.count[blockIdx.x] = total.count;
}

}  // namespace fusedres::cuda
