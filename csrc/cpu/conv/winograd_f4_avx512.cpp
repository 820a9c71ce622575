// The transforms of F(4x4, 3x3), 16 channels at a time; winograd_f4.h has its points.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC bug 105593
#include <immintrin.h>

#include "cpu/conv/winograd.h"
#include "cpu/conv/winograd_f4.h"

namespace fusedres::conv {
namespace {

constexpr int kOutputs = 4, kSide = 6;

// B' applied to six values. The rows of p and -p (and of q and -q) are an even and an odd part, added and
// subtracted: two FMAs a row.
inline __attribute__((always_inline)) void input_column(const __m512 d[kSide], __m512 out[kSide]) {
  using namespace winograd_f4;
  const __m512 p = _mm512_set1_ps(kP), q = _mm512_set1_ps(kQ);
  const __m512 pp = _mm512_set1_ps(kP * kP), qq = _mm512_set1_ps(kQ * kQ);
  const __m512 product = _mm512_set1_ps(kP * kP * kQ * kQ), sum = _mm512_set1_ps(kP * kP + kQ * kQ);
  out[0] = _mm512_fmadd_ps(product, d[0], _mm512_fnmadd_ps(sum, d[2], d[4]));
  const __m512 even_p = _mm512_fnmadd_ps(qq, d[2], d[4]), odd_p = _mm512_fnmadd_ps(qq, d[1], d[3]);
  out[1] = _mm512_fmadd_ps(p, odd_p, even_p);
  out[2] = _mm512_fnmadd_ps(p, odd_p, even_p);
  const __m512 even_q = _mm512_fnmadd_ps(pp, d[2], d[4]), odd_q = _mm512_fnmadd_ps(pp, d[1], d[3]);
  out[3] = _mm512_fmadd_ps(q, odd_q, even_q);
  out[4] = _mm512_fnmadd_ps(q, odd_q, even_q);
  out[5] = _mm512_fmadd_ps(product, d[1], _mm512_fnmadd_ps(sum, d[3], d[5]));
}

void transform_input(const float* const* patch, int64_t channels, float* v, int64_t point) {
  for (int64_t c = 0; c < channels; c += 16) {
    const auto lanes = static_cast<__mmask16>(channels - c >= 16 ? 0xffff : (1 << (channels - c)) - 1);
    __m512 half[kSide][kSide];  // half[j] = B' of column j
#pragma GCC unroll 6
    for (int j = 0; j < kSide; ++j) {
      __m512 column[kSide];
#pragma GCC unroll 6
      for (int i = 0; i < kSide; ++i) column[i] = _mm512_maskz_loadu_ps(lanes, patch[i * kSide + j] + c);
      input_column(column, half[j]);
    }
#pragma GCC unroll 6
    for (int i = 0; i < kSide; ++i) {
      const __m512 row[kSide] = {half[0][i], half[1][i], half[2][i], half[3][i], half[4][i], half[5][i]};
      __m512 whole[kSide];
      input_column(row, whole);
#pragma GCC unroll 6
      for (int j = 0; j < kSide; ++j) _mm512_storeu_ps(v + (i * kSide + j) * point + c, whole[j]);
    }
  }
}

// A' applied to six values.
inline __attribute__((always_inline)) void output_column(const __m512 m[kSide], __m512 out[kOutputs]) {
  using namespace winograd_f4;
  const __m512 p = _mm512_set1_ps(kP), q = _mm512_set1_ps(kQ);
  const __m512 pp = _mm512_set1_ps(kP * kP), qq = _mm512_set1_ps(kQ * kQ);
  const __m512 ppp = _mm512_set1_ps(kP * kP * kP), qqq = _mm512_set1_ps(kQ * kQ * kQ);
  const __m512 even_p = _mm512_add_ps(m[1], m[2]), odd_p = _mm512_sub_ps(m[1], m[2]);
  const __m512 even_q = _mm512_add_ps(m[3], m[4]), odd_q = _mm512_sub_ps(m[3], m[4]);
  out[0] = _mm512_add_ps(m[0], _mm512_add_ps(even_p, even_q));
  out[1] = _mm512_fmadd_ps(p, odd_p, _mm512_mul_ps(q, odd_q));
  out[2] = _mm512_fmadd_ps(pp, even_p, _mm512_mul_ps(qq, even_q));
  out[3] = _mm512_fmadd_ps(ppp, odd_p, _mm512_fmadd_ps(qqq, odd_q, m[5]));
}

void transform_output(
    const float* m, int64_t point, float* const* out, const float* const* residual, const float* scale,
    const float* shift, float floor, int64_t channels) {
  const __m512 least = _mm512_set1_ps(floor);
  for (int64_t k = 0; k < channels; k += 16) {
    const auto lanes = static_cast<__mmask16>(channels - k >= 16 ? 0xffff : (1 << (channels - k)) - 1);
    __m512 half[kSide][kOutputs];  // half[j] = A' of column j
#pragma GCC unroll 6
    for (int j = 0; j < kSide; ++j) {
      __m512 column[kSide];
#pragma GCC unroll 6
      for (int i = 0; i < kSide; ++i) column[i] = _mm512_loadu_ps(m + (i * kSide + j) * point + k);
      output_column(column, half[j]);
    }
    const __m512 s = _mm512_loadu_ps(scale + k), t = _mm512_loadu_ps(shift + k);
#pragma GCC unroll 4
    for (int i = 0; i < kOutputs; ++i) {
      const __m512 row[kSide] = {half[0][i], half[1][i], half[2][i], half[3][i], half[4][i], half[5][i]};
      __m512 y[kOutputs];
      output_column(row, y);
#pragma GCC unroll 4
      for (int j = 0; j < kOutputs; ++j) {
        float* to = out[i * kOutputs + j];
        if (to == nullptr) continue;
        __m512 value = _mm512_fmadd_ps(y[j], s, t);
        const float* add = residual[i * kOutputs + j];
        if (add != nullptr) value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(lanes, add + k));
        _mm512_mask_storeu_ps(to + k, lanes, _mm512_max_ps(least, value));
      }
    }
  }
}

}  // namespace

const WinogradTransforms kWinogradF4Avx512 = {transform_input, transform_output, kOutputs};

}  // namespace fusedres::conv
