// The tile of a weight gradient, its operands' copies and Winograd's transforms, on AVX-512.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC bug 105593
#include <immintrin.h>

#include <algorithm>

#include "cpu/conv/wgrad.h"

namespace fusedres::conv {
namespace {

inline __attribute__((always_inline)) __mmask16 lanes(int64_t count) {
  return static_cast<__mmask16>(count >= 16 ? 0xffff : (1 << std::max<int64_t>(count, 0)) - 1);
}

// An instruction of its own: folded into the two FMAs it would be loaded twice, 30 loads beside 28 FMAs.
inline __attribute__((always_inline)) __m512 broadcast(const float* from) {
  __m512 v;
  asm("vbroadcastss %1, %0" : "=v"(v) : "m"(*from));
  return v;
}

// Pixels whose products are summed in one chain. A chain of 196 was seen at twice the error of oneDNN's sums,
// which go in blocks; 28 loads, additions and stores are 4% beside 128 x 14 cycles.
constexpr int64_t kChain = 128;

template <int kRows>
inline __attribute__((always_inline)) void move_to_total(__m512 (&sums)[kRows][2], float* total, bool add) {
#pragma GCC unroll 14
  for (int row = 0; row < kRows; ++row)
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) {
      float* to = total + row * 32 + v * 16;
      _mm512_storeu_ps(to, add ? _mm512_add_ps(sums[row][v], _mm512_loadu_ps(to)) : sums[row][v]);
      sums[row][v] = _mm512_setzero_ps();
    }
}

template <int kRows>
__attribute__((noinline)) void tile(const WgradTile& work) {
  __m512 sums[kRows][2];
#pragma GCC unroll 14
  for (int row = 0; row < kRows; ++row) sums[row][0] = sums[row][1] = _mm512_setzero_ps();
  const float* a = work.a;
  const int64_t step = work.b_step;
  int64_t room = kChain;
  bool add = work.add;
  for (int64_t image = 0; image < work.images; ++image)
    for (int64_t line = 0; line < work.lines; ++line) {
      const float* b = work.b + image * work.b_image + line * work.b_line;
      for (int64_t left = work.length; left > 0;) {
        const int64_t now = std::min(left, room);
        for (int64_t pixel = now; pixel > 0; --pixel) {
          const __m512 b0 = _mm512_loadu_ps(b), b1 = _mm512_loadu_ps(b + 16);
#pragma GCC unroll 14
          for (int row = 0; row < kRows; ++row) {
            const __m512 v = broadcast(a + row);
            sums[row][0] = _mm512_fmadd_ps(v, b0, sums[row][0]);
            sums[row][1] = _mm512_fmadd_ps(v, b1, sums[row][1]);
          }
          a += kRows;
          b += step;
        }
        left -= now;
        room -= now;
        if (room > 0) continue;
        move_to_total<kRows>(sums, work.sums, add);
        add = true;
        room = kChain;
      }
    }
  if (room < kChain) move_to_total<kRows>(sums, work.sums, add);
}

auto tile_of(int64_t rows) -> void (*)(const WgradTile&) {
  static constexpr void (*kTiles[])(const WgradTile&) = {tile<1>,  tile<2>,  tile<3>,  tile<4>, tile<5>,
                                                         tile<6>,  tile<7>,  tile<8>,  tile<9>, tile<10>,
                                                         tile<11>, tile<12>, tile<13>, tile<14>};
  return kTiles[rows - 1];
}

template <bool kActivate>
void pack_pixels(
    const float* x, int64_t step, int64_t pixels, int64_t channels, Activation activation, float* to,
    int64_t panel) {
  for (int64_t pixel = 0; pixel < pixels; ++pixel)
    for (int64_t c = 0; c < channels; c += 32) {
      float* out = to + c / 32 * panel + pixel * 32;
#pragma GCC unroll 2
      for (int64_t v = c; v < c + 32; v += 16, out += 16) {
        const __mmask16 present = lanes(channels - v);
        __m512 value = _mm512_maskz_loadu_ps(present, x + pixel * step + v);
        if constexpr (kActivate) {
          // Rounded after the product and after the sum, as everywhere else (common/element.h). A NaN stays
          // one.
          const __m512 scale = _mm512_maskz_loadu_ps(present, activation.scale + v);
          const __m512 shift = _mm512_maskz_loadu_ps(present, activation.shift + v);
          value = _mm512_max_ps(_mm512_setzero_ps(), _mm512_add_ps(_mm512_mul_ps(value, scale), shift));
        }
        _mm512_storeu_ps(out, value);
      }
    }
}

void pack_panels(
    const float* x, int64_t step, int64_t pixels, int64_t channels, Activation activation, float* to,
    int64_t panel) {
  if (x == nullptr) {
    for (int64_t c = 0; c < channels; c += 32) std::fill_n(to + c / 32 * panel, pixels * 32, 0.0f);
  } else if (activation.scale != nullptr) {
    pack_pixels<true>(x, step, pixels, channels, activation, to, panel);
  } else {
    pack_pixels<false>(x, step, pixels, channels, activation, to, panel);
  }
}

void pack_tiles(
    const float* dy, int64_t step, int64_t pixels, int64_t channels, int64_t rows, float* to, int64_t tile) {
  for (int64_t pixel = 0; pixel < pixels; ++pixel) {
    const float* from = dy + pixel * step;
    float* out = to + pixel * rows;
    for (int64_t k = 0; k < channels; k += rows, out += tile)
      _mm512_mask_storeu_ps(
          out, lanes(rows), _mm512_maskz_loadu_ps(lanes(std::min(rows, channels - k)), from + k));
  }
}

// A applied to two values: A' takes four to two in the forward.
inline __attribute__((always_inline)) void gradient_column(const __m512 d[2], __m512 out[4]) {
  out[0] = d[0];
  out[1] = _mm512_add_ps(d[0], d[1]);
  out[2] = _mm512_sub_ps(d[0], d[1]);
  out[3] = _mm512_sub_ps(_mm512_setzero_ps(), d[1]);
}

void transform_gradient(
    const float* const patch[4], int64_t channels, int64_t rows, float* to, int64_t tile, int64_t point) {
  for (int64_t k = 0; k < channels; k += rows, to += tile) {
    const __mmask16 present = lanes(std::min(rows, channels - k));
    __m512 half[2][4];  // half[j] = A of column j
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
      __m512 column[2];
#pragma GCC unroll 2
      for (int i = 0; i < 2; ++i)
        column[i] = patch[i * 2 + j] == nullptr ? _mm512_setzero_ps()
                                                : _mm512_maskz_loadu_ps(present, patch[i * 2 + j] + k);
      gradient_column(column, half[j]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const __m512 row[2] = {half[0][i], half[1][i]};
      __m512 whole[4];
      gradient_column(row, whole);
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) _mm512_mask_storeu_ps(to + (i * 4 + j) * point, lanes(rows), whole[j]);
    }
  }
}

// G' applied to four values.
inline __attribute__((always_inline)) void filter_column(const __m512 m[4], __m512 out[3]) {
  const __m512 half = _mm512_set1_ps(0.5f);
  const __m512 even = _mm512_mul_ps(half, _mm512_add_ps(m[1], m[2]));
  out[0] = _mm512_add_ps(m[0], even);
  out[1] = _mm512_mul_ps(half, _mm512_sub_ps(m[1], m[2]));
  out[2] = _mm512_add_ps(even, m[3]);
}

void transform_filter(const float* m, int64_t point, float* taps, int64_t tap) {
  for (int64_t c = 0; c < 32; c += 16) {
    __m512 half[4][3];  // half[j] = G' of column j
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      __m512 column[4];
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) column[i] = _mm512_loadu_ps(m + (i * 4 + j) * point + c);
      filter_column(column, half[j]);
    }
#pragma GCC unroll 3
    for (int i = 0; i < 3; ++i) {
      const __m512 row[4] = {half[0][i], half[1][i], half[2][i], half[3][i]};
      __m512 whole[3];
      filter_column(row, whole);
#pragma GCC unroll 3
      for (int j = 0; j < 3; ++j) _mm512_storeu_ps(taps + (i * 3 + j) * tap + c, whole[j]);
    }
  }
}

}  // namespace

const WgradKernels kWgradAvx512 = {tile_of, pack_panels, pack_tiles, transform_gradient, transform_filter};

}  // namespace fusedres::conv
