#pragma once

#include "cuda/bn_act_bwd_reduce.h"
#include "cuda/common/reduce.cuh"

namespace fusedres::cuda {

// Rows that a thread loads before it computes: up to 3 x 4 x 16 bytes in flight.
constexpr int kReduceRows = 4;

template <typename T, int kN, Mask kMask, int kDots>
__global__ void __launch_bounds__(kRowThreads, kDots > 1 ? 1 : 2)
    bn_act_bwd_reduce_kernel(const BnActBwdReduceParams<T> k) {
  constexpr bool kReadsY = kDots > 0 || kMask == Mask::kAffine;
  __shared__ BlockSums<kN, 1 + kDots> scratch[kRowThreads];
  const RowWalk walk(k.channels, kN);
  Floats<kN> affine_of_y[2], means[2];  // scale and shift; of y and y2
  if constexpr (kMask == Mask::kAffine) load_vectors<kN>(walk, k.channels, {k.s, k.t}, affine_of_y);
  if constexpr (kDots > 0) load_vectors<kN>(walk, k.channels, {k.mean, kDots > 1 ? k.mean2 : k.mean}, means);
  ExactSums<kN> sum = ExactSums<kN>::none(), dot = sum, dot2 = sum;
  for_row_groups<kReduceRows>(walk, k.rows, [&](auto count, int64_t first) {
    constexpr int kRows = decltype(count)::value;
    const int64_t at = first * k.channels + walk.channel, pitch = walk.step * k.channels;
    [[maybe_unused]] Pack<T, kN> dout[kRows], out[kRows], y[kRows], y2[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      dout[r] = load_pack<T, kN>(k.dout + at + r * pitch);
      if constexpr (kMask == Mask::kOut) out[r] = load_pack<T, kN>(k.out + at + r * pitch);
      if constexpr (kReadsY) y[r] = load_pack<T, kN>(k.y + at + r * pitch);
      if constexpr (kDots > 1) y2[r] = load_pack<T, kN>(k.y2 + at + r * pitch);
    }
    [[maybe_unused]] Floats<kN> rows_sum = splat<kN>(0.0f), rows_dot = rows_sum, rows_dot2 = rows_sum;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int i = 0; i < kN; ++i) {
        bool on = true;
        if constexpr (kMask == Mask::kOut) on = to_float(out[r].v[i]) > 0.0f;
        if constexpr (kMask == Mask::kAffine)
          on = rounds_positive<T>(affine(to_float(y[r].v[i]), affine_of_y[0][i], affine_of_y[1][i]));
        if (!on) dout[r].v[i] = T{};
        const float dz = to_float(dout[r].v[i]);
        rows_sum[i] += dz;
        if constexpr (kDots > 0) rows_dot[i] += dz * (to_float(y[r].v[i]) - means[0][i]);
        if constexpr (kDots > 1) rows_dot2[i] += dz * (to_float(y2[r].v[i]) - means[1][i]);
      }
      if constexpr (kMask != Mask::kNone) store_pack(k.dz + at + r * pitch, dout[r]);
    }
    sum.add(rows_sum);
    if constexpr (kDots > 0) dot.add(rows_dot);
    if constexpr (kDots > 1) dot2.add(rows_dot2);
  });
  BlockSums<kN, 1 + kDots> sums;
  sums.set(0, sum);
  if constexpr (kDots > 0) sums.set(1, dot);
  if constexpr (kDots > 1) sums.set(2, dot2);
  sums.fold(scratch);
  sums.template write<kDots == 0 ? 0 : 1>(walk, k.channels, k.invstd, k.sums);
  if constexpr (kDots > 1) sums.template write<2>(walk, k.channels, k.invstd2, k.sums2);
}

}  // namespace fusedres::cuda
