#pragma once

#include "cuda/bn_act_bwd_apply.h"
#include "cuda/common/rows.h"
#include "cuda/common/vec.cuh"

namespace fusedres::cuda {

template <int kN>
__device__ __forceinline__ Floats<kN> input_gradient(
    const Floats<kN>& dz, const Floats<kN>& y, const Floats<kN>& p, const Floats<kN>& q,
    const Floats<kN>& r) {
  Floats<kN> dy;
#pragma unroll
  for (int i = 0; i < kN; ++i) dy[i] = p[i] * dz[i] + affine(y[i], q[i], r[i]);
  return dy;
}

template <typename T, int kN>
__global__ void __launch_bounds__(kRowThreads, 2) bn_act_bwd_apply_kernel(const BnActBwdApplyParams<T> k) {
  const RowWalk walk(k.channels, kN);
  Floats<kN> v[3];
  load_vectors<kN>(walk, k.channels, {k.p, k.q, k.r}, v);
  if (!walk.active) return;
#pragma unroll 2
  for (int64_t row = walk.row; row < k.rows; row += walk.step) {
    const int64_t at = row * k.channels + walk.channel;
    store(k.dy + at, input_gradient(load<T, kN>(k.dz + at), load<T, kN>(k.y + at), v[0], v[1], v[2]));
  }
}

template <typename T, int kN>
__global__ void __launch_bounds__(kRowThreads, 2)
    bn_act_bwd_apply_two_kernel(const BnActBwdApplyParams<T> k) {
  const RowWalk walk(k.channels, kN);
  Floats<kN> v[6];
  load_vectors<kN>(walk, k.channels, {k.p, k.q, k.r, k.p2, k.q2, k.r2}, v);
  if (!walk.active) return;
  for (int64_t row = walk.row; row < k.rows; row += walk.step) {
    const int64_t at = row * k.channels + walk.channel;
    const Floats<kN> dz = load<T, kN>(k.dz + at), y = load<T, kN>(k.y + at), y2 = load<T, kN>(k.y2 + at);
    store(k.dy + at, input_gradient(dz, y, v[0], v[1], v[2]));
    store(k.dy2 + at, input_gradient(dz, y2, v[3], v[4], v[5]));
  }
}

}  // namespace fusedres::cuda
