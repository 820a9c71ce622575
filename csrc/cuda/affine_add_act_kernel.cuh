#pragma once

#include "cuda/affine_add_act.h"
#include "cuda/common/rows.h"
#include "cuda/common/vec.cuh"

namespace fusedres::cuda {

enum class Add { kNone, kIdentity, kAffine };

template <typename T, int kN, Add kAdd, bool kRelu>
__global__ void __launch_bounds__(kRowThreads) affine_add_act_kernel(const AffineAddActParams<T> k) {
  const RowWalk walk(k.channels, kN);
  if (!walk.active) return;
  const Floats<kN> sa = load_vector<kN>(k.sa + walk.channel), ta = load_vector<kN>(k.ta + walk.channel);
  Floats<kN> sb, tb;
  if constexpr (kAdd == Add::kAffine) {
    sb = load_vector<kN>(k.sb + walk.channel);
    tb = load_vector<kN>(k.tb + walk.channel);
  }
#pragma unroll 2
  for (int64_t row = walk.row; row < k.rows; row += walk.step) {
    const int64_t at = row * k.channels + walk.channel;
    Floats<kN> x = load<T, kN>(k.a + at), b;
    if constexpr (kAdd != Add::kNone) b = load<T, kN>(k.b + at);
#pragma unroll
    for (int i = 0; i < kN; ++i) {
      x[i] = affine(x[i], sa[i], ta[i]);
      if constexpr (kAdd == Add::kIdentity) x[i] += b[i];
      if constexpr (kAdd == Add::kAffine) x[i] += affine(b[i], sb[i], tb[i]);
      if constexpr (kRelu) x[i] = relu(x[i]);
    }
    store(k.out + at, x);
  }
}

}  // namespace fusedres::cuda
