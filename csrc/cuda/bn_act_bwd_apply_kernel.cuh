#pragma once

#include "cuda/bn_act_bwd_apply.h"
#include "cuda/common/rows.h"
#include "cuda/common/vec.cuh"

namespace fusedres::cuda {

// Of kN channels.
template <int kN>
struct BwdCoefficients {
  Floats<kN> p, q, r;

  __device__ BwdCoefficients(const float* p, const float* q, const float* r, int64_t channel)
      : p(load_vector<kN>(p + channel)), q(load_vector<kN>(q + channel)), r(load_vector<kN>(r + channel)) {}

  __device__ Floats<kN> operator()(const Floats<kN>& dz, const Floats<kN>& y) const {
    Floats<kN> dy;
#pragma unroll
    for (int i = 0; i < kN; ++i) dy[i] = p[i] * dz[i] + affine(y[i], q[i], r[i]);
    return dy;
  }
};

template <typename T, int kN>
__global__ void __launch_bounds__(kRowThreads) bn_act_bwd_apply_kernel(const BnActBwdApplyParams<T> k) {
  const RowWalk walk(k.channels, kN);
  if (!walk.active) return;
  const BwdCoefficients<kN> branch(k.p, k.q, k.r, walk.channel);
#pragma unroll 2
  for (int64_t row = walk.row; row < k.rows; row += walk.step) {
    const int64_t at = row * k.channels + walk.channel;
    store(k.dy + at, branch(load<T, kN>(k.dz + at), load<T, kN>(k.y + at)));
  }
}

template <typename T, int kN>
__global__ void __launch_bounds__(kRowThreads) bn_act_bwd_apply_two_kernel(const BnActBwdApplyParams<T> k) {
  const RowWalk walk(k.channels, kN);
  if (!walk.active) return;
  const BwdCoefficients<kN> branch(k.p, k.q, k.r, walk.channel), other(k.p2, k.q2, k.r2, walk.channel);
  for (int64_t row = walk.row; row < k.rows; row += walk.step) {
    const int64_t at = row * k.channels + walk.channel;
    const Floats<kN> dz = load<T, kN>(k.dz + at), y = load<T, kN>(k.y + at), y2 = load<T, kN>(k.y2 + at);
    store(k.dy + at, branch(dz, y));
    store(k.dy2 + at, other(dz, y2));
  }
}

}  // namespace fusedres::cuda
