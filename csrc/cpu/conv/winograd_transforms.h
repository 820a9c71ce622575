// The transforms of F(2x2, 3x3) and F(4x4, 3x3), a vector of channels at a time. Include only from
// winograd_<isa>.cpp.
#pragma once

#include "cpu/conv/multiply_add.h"
#include "cpu/conv/winograd.h"
#include "cpu/conv/winograd_f4.h"

namespace fusedres::FUSEDRES_ISA {

// B' and A' of one column. Points 0, 1, -1 and infinity.
struct F2 {
  static constexpr int kOutputs = 2, kSide = 4;

  static FUSEDRES_INLINE void input(const Vec (&d)[kSide], Vec (&out)[kSide]) {
    out[0] = d[0] - d[2];
    out[1] = d[1] + d[2];
    out[2] = d[2] - d[1];
    out[3] = d[1] - d[3];
  }

  static FUSEDRES_INLINE void output(const Vec (&m)[kSide], Vec (&out)[kOutputs]) {
    out[0] = m[0] + m[1] + m[2];
    out[1] = m[1] - m[2] - m[3];
  }
};

// winograd_f4.h has the points. What a point and its negative share is an even and an odd part, added and
// subtracted.
struct F4 {
  static constexpr int kOutputs = 4, kSide = 6;
  static constexpr float kP = conv::winograd_f4::kP, kQ = conv::winograd_f4::kQ;

  static FUSEDRES_INLINE void input(const Vec (&d)[kSide], Vec (&out)[kSide]) {
    const Vec p = splat(kP), q = splat(kQ), pp = splat(kP * kP), qq = splat(kQ * kQ);
    const Vec product = splat(kP * kP * kQ * kQ), sum = splat(kP * kP + kQ * kQ);
    out[0] = multiply_add(product, d[0], subtract_product(sum, d[2], d[4]));
    const Vec even_p = subtract_product(qq, d[2], d[4]), odd_p = subtract_product(qq, d[1], d[3]);
    out[1] = multiply_add(p, odd_p, even_p);
    out[2] = subtract_product(p, odd_p, even_p);
    const Vec even_q = subtract_product(pp, d[2], d[4]), odd_q = subtract_product(pp, d[1], d[3]);
    out[3] = multiply_add(q, odd_q, even_q);
    out[4] = subtract_product(q, odd_q, even_q);
    out[5] = multiply_add(product, d[1], subtract_product(sum, d[3], d[5]));
  }

  static FUSEDRES_INLINE void output(const Vec (&m)[kSide], Vec (&out)[kOutputs]) {
    const Vec p = splat(kP), q = splat(kQ), pp = splat(kP * kP), qq = splat(kQ * kQ);
    const Vec even_p = m[1] + m[2], odd_p = m[1] - m[2];
    const Vec even_q = m[3] + m[4], odd_q = m[3] - m[4];
    out[0] = m[0] + (even_p + even_q);
    out[1] = multiply_add(p, odd_p, q * odd_q);
    out[2] = multiply_add(pp, even_p, qq * even_q);
    out[3] = multiply_add(splat(kP * kP * kP), odd_p, multiply_add(splat(kQ * kQ * kQ), odd_q, m[5]));
  }
};

// T: the maps' and V's.
template <class F, typename T>
void transform_input(const char* const* patch, int64_t channels, char* v, int64_t point) {
  constexpr int kSide = F::kSide;
  for_channels(channels, [&](int64_t c, int lanes) __attribute__((always_inline)) {
    Vec half[kSide][kSide];  // half[i][j]: row i of B' applied to column j
#pragma GCC unroll 6
    for (int j = 0; j < kSide; ++j) {
      Vec column[kSide], out[kSide];
#pragma GCC unroll 6
      for (int i = 0; i < kSide; ++i)
        column[i] = load(reinterpret_cast<const T*>(patch[i * kSide + j]) + c, lanes);
      F::input(column, out);
#pragma GCC unroll 6
      for (int i = 0; i < kSide; ++i) half[i][j] = out[i];
    }
#pragma GCC unroll 6
    for (int i = 0; i < kSide; ++i) {
      Vec whole[kSide];
      F::input(half[i], whole);
#pragma GCC unroll 6
      for (int j = 0; j < kSide; ++j)
        store(reinterpret_cast<T*>(v + (i * kSide + j) * point) + c, whole[j], kLanes);
    }
  });
}

template <class F, typename T>
void transform_output(
    const float* m, int64_t point, char* const* out, const char* const* residual, const float* scale,
    const float* shift, float floor, bool rounds, int64_t channels) {
  constexpr int kSide = F::kSide, kOutputs = F::kOutputs;
  const Vec least = splat(floor);
  for_channels(channels, [&](int64_t k, int lanes) __attribute__((always_inline)) {
    Vec half[kOutputs][kSide];  // half[i][j]: row i of A' applied to column j
#pragma GCC unroll 6
    for (int j = 0; j < kSide; ++j) {
      Vec column[kSide], y[kOutputs];
#pragma GCC unroll 6
      for (int i = 0; i < kSide; ++i) column[i] = load(m + (i * kSide + j) * point + k, kLanes);
      F::output(column, y);
#pragma GCC unroll 4
      for (int i = 0; i < kOutputs; ++i) half[i][j] = y[i];
    }
    const Vec s = load(scale + k, kLanes), t = load(shift + k, kLanes);
#pragma GCC unroll 4
    for (int i = 0; i < kOutputs; ++i) {
      Vec y[kOutputs];
      F::output(half[i], y);
#pragma GCC unroll 4
      for (int j = 0; j < kOutputs; ++j) {
        const int at = i * kOutputs + j;
        if (out[at] == nullptr) continue;
        Vec value = multiply_add(y[j], s, t);
        if (residual[at] != nullptr) value += load(reinterpret_cast<const T*>(residual[at]) + k, lanes);
        value = at_least(least, value);
        store(reinterpret_cast<T*>(out[at]) + k, rounds ? rounded_to<BFloat16>(value) : value, lanes);
      }
    }
  });
}

template <class F, typename T = float>
constexpr conv::WinogradTransforms kTransforms = {transform_input<F, T>, transform_output<F, T>, F::kOutputs};

}  // namespace fusedres::FUSEDRES_ISA
