#pragma once

#include "cuda/affine_add_act.h"
#include "cuda/common/rows.h"
#include "cuda/common/vec.cuh"

namespace fusedres::cuda {

enum class Add { kNone, kIdentity, kAffine };

template <typename T, int kN, Add kAdd, bool kRelu>
__global__ void __launch_bounds__(kRowThreads, 2) affine_add_act_kernel(const AffineAddActParams<T> k) {
  const RowWalk walk(k.channels, kN);
  constexpr int kVectors = kAdd == Add::kAffine ? 4 : 2;
  Floats<kN> vectors[kVectors];
  if constexpr (kAdd == Add::kAffine) {
    load_vectors<kN>(walk, k.channels, {k.sa, k.ta, k.sb, k.tb}, vectors);
  } else {
    load_vectors<kN>(walk, k.channels, {k.sa, k.ta}, vectors);
  }
  if (!walk.active) return;
  const auto &sa = vectors[0], &ta = vectors[1], &sb = vectors[kVectors - 2], &tb = vectors[kVectors - 1];
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
