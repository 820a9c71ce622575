// dy = p * dz + q * y + r, and dy2 of a second branch with the same dz: every tensor is touched once.
#pragma once

#include "cpu/kernels/params.h"
#include "cpu/kernels/vec.h"

namespace fusedres::FUSEDRES_ISA {

template <typename T, bool kTwo>
void bn_act_bwd_apply_rows(const BnActBwdApply<T> k, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const int64_t at = row * k.channels;
    for_channels(k.channels, [&](int64_t c, int n) __attribute__((always_inline)) {
      const Vec dz = load(k.dz + at + c, n);
      store(
          k.dy + at + c,
          load(k.p + c, n) * dz + affine(load(k.y + at + c, n), load(k.q + c, n), load(k.r + c, n)), n,
          k.past_caches);
      if constexpr (kTwo) {
        const Vec rest = affine(load(k.y2 + at + c, n), load(k.q2 + c, n), load(k.r2 + c, n));
        store(k.dy2 + at + c, load(k.p2 + c, n) * dz + rest, n, k.past_caches);
      }
    });
  }
}

template <typename T>
void bn_act_bwd_apply_kernel(const BnActBwdApply<T>& k, int64_t begin, int64_t end) {
  k.y2 == nullptr ? bn_act_bwd_apply_rows<T, false>(k, begin, end)
                  : bn_act_bwd_apply_rows<T, true>(k, begin, end);
  finish_streaming();
}

}  // namespace fusedres::FUSEDRES_ISA
