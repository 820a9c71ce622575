// The transforms of F(2x2, 3x3), 16 channels at a time.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC bug 105593
#include <immintrin.h>

#include "cpu/conv/winograd.h"

namespace fusedres::conv {
namespace {

// B' applied to four values.
inline __attribute__((always_inline)) void input_column(const __m512 d[4], __m512 out[4]) {
  out[0] = _mm512_sub_ps(d[0], d[2]);
  out[1] = _mm512_add_ps(d[1], d[2]);
  out[2] = _mm512_sub_ps(d[2], d[1]);
  out[3] = _mm512_sub_ps(d[1], d[3]);
}

void transform_input(const float* const patch[16], int64_t channels, float* v, int64_t point) {
  for (int64_t c = 0; c < channels; c += 16) {
    const auto lanes = static_cast<__mmask16>(channels - c >= 16 ? 0xffff : (1 << (channels - c)) - 1);
    __m512 half[4][4];  // half[j] = B' of column j
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      __m512 column[4];
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) column[i] = _mm512_maskz_loadu_ps(lanes, patch[i * 4 + j] + c);
      input_column(column, half[j]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const __m512 row[4] = {half[0][i], half[1][i], half[2][i], half[3][i]};
      __m512 whole[4];
      input_column(row, whole);
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) _mm512_storeu_ps(v + (i * 4 + j) * point + c, whole[j]);
    }
  }
}

// A' applied to four values.
inline __attribute__((always_inline)) void output_column(const __m512 m[4], __m512 out[2]) {
  out[0] = _mm512_add_ps(_mm512_add_ps(m[0], m[1]), m[2]);
  out[1] = _mm512_sub_ps(_mm512_sub_ps(m[1], m[2]), m[3]);
}

void transform_output(
    const float* m, int64_t point, float* const out[4], const float* const residual[4], const float* scale,
    const float* shift, float floor, int64_t channels) {
  const __m512 least = _mm512_set1_ps(floor);
  for (int64_t k = 0; k < channels; k += 16) {
    const auto lanes = static_cast<__mmask16>(channels - k >= 16 ? 0xffff : (1 << (channels - k)) - 1);
    __m512 half[4][2];  // half[j] = A' of column j
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      __m512 column[4];
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) column[i] = _mm512_loadu_ps(m + (i * 4 + j) * point + k);
      output_column(column, half[j]);
    }
    const __m512 s = _mm512_loadu_ps(scale + k), t = _mm512_loadu_ps(shift + k);
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      const __m512 row[4] = {half[0][i], half[1][i], half[2][i], half[3][i]};
      __m512 y[2];
      output_column(row, y);
#pragma GCC unroll 2
      for (int j = 0; j < 2; ++j) {
        float* to = out[i * 2 + j];
        if (to == nullptr) continue;
        __m512 value = _mm512_fmadd_ps(y[j], s, t);
        if (residual[i * 2 + j] != nullptr)
          value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(lanes, residual[i * 2 + j] + k));
        _mm512_mask_storeu_ps(to + k, lanes, _mm512_max_ps(least, value));
      }
    }
  }
}

}  // namespace

const WinogradTransforms kWinogradAvx512 = {transform_input, transform_output};

}  // namespace fusedres::conv
