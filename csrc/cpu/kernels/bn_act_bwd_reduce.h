// dz = dout where the activation was positive, sum dz, and sum dz * (y - mean) for one or two branches:
// every tensor is read once, dz written once.
#pragma once

#include <algorithm>
#include <type_traits>

#include "cpu/kernels/params.h"
#include "cpu/kernels/row_sums.h"

namespace fusedres::FUSEDRES_ISA {

enum class Mask { kNone, kOut, kAffine };

template <typename T, Mask kMask, bool kY, bool kTwo>
FUSEDRES_INLINE void reduce_group(const BnActBwdReduce<T> k, int64_t row, int64_t rows, double* partial) {
  for_channels(k.channels, [&](int64_t c, int n) __attribute__((always_inline)) {
    const int64_t at = row * k.channels + c;
    Vec scale{}, shift{}, mean{}, mean2{}, sum{}, dot{}, dot2{};
    if constexpr (kMask == Mask::kAffine) scale = load(k.s + c, n), shift = load(k.t + c, n);
    if constexpr (kY) mean = load(k.mean + c, n);
    if constexpr (kTwo) mean2 = load(k.mean2 + c, n);
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t element = at + i * k.channels, coming = element + kGroup * k.channels;
      prefetch(k.dout + coming);
      if constexpr (kY || kMask == Mask::kAffine) prefetch(k.y + coming);
      if constexpr (kMask == Mask::kOut) prefetch(k.out + coming);
      if constexpr (kTwo) prefetch(k.y2 + coming);
      Vec dz = load(k.dout + element, n), y{};
      if constexpr (kY || kMask == Mask::kAffine) y = load(k.y + element, n);
      if constexpr (kMask == Mask::kOut) dz = where_positive(load(k.out + element, n), dz);
      if constexpr (kMask == Mask::kAffine) dz = where_rounds_positive<T>(affine(y, scale, shift), dz);
      if constexpr (kMask != Mask::kNone) store(k.dz + element, dz, n, k.past_caches);
      sum += dz;
      if constexpr (kY) dot += dz * (y - mean);
      if constexpr (kTwo) dot2 += dz * (load(k.y2 + element, n) - mean2);
    }
    add_to(partial + c, sum, n);
    if constexpr (kY) add_to(partial + k.channels + c, dot, n);
    if constexpr (kTwo) add_to(partial + 2 * k.channels + c, dot2, n);
  });
}

template <typename T, Mask kMask, bool kY, bool kTwo>
void bn_act_bwd_reduce_chunks(const BnActBwdReduce<T> k, int64_t begin_chunk, int64_t end_chunk) {
  for (int64_t chunk = begin_chunk; chunk < end_chunk; ++chunk) {
    double* partial = k.partial + chunk * 3 * k.channels;
    std::fill(partial, partial + 3 * k.channels, 0.0);
    const int64_t begin = chunk * k.chunk_rows, end = std::min(begin + k.chunk_rows, k.rows);
    for_groups(begin, end, [&](int64_t row, int64_t rows) __attribute__((always_inline)) {
      reduce_group<T, kMask, kY, kTwo>(k, row, rows, partial);
    });
  }
}

template <typename T, Mask kMask>
void bn_act_bwd_reduce_masked(const BnActBwdReduce<T>& k, int64_t begin, int64_t end) {
  const bool one = k.y != nullptr && k.mean != nullptr, two = k.y2 != nullptr;
  if (one) {
    two ? bn_act_bwd_reduce_chunks<T, kMask, true, true>(k, begin, end)
        : bn_act_bwd_reduce_chunks<T, kMask, true, false>(k, begin, end);
  } else {
    two ? bn_act_bwd_reduce_chunks<T, kMask, false, true>(k, begin, end)
        : bn_act_bwd_reduce_chunks<T, kMask, false, false>(k, begin, end);
  }
}

template <typename T>
void bn_act_bwd_reduce_kernel(const BnActBwdReduce<T>& k, int64_t begin, int64_t end) {
  if (k.out != nullptr) {
    bn_act_bwd_reduce_masked<T, Mask::kOut>(k, begin, end);
  } else if (k.s != nullptr) {
    bn_act_bwd_reduce_masked<T, Mask::kAffine>(k, begin, end);
  } else {
    bn_act_bwd_reduce_masked<T, Mask::kNone>(k, begin, end);
  }
  finish_streaming();
}

}  // namespace fusedres::FUSEDRES_ISA
