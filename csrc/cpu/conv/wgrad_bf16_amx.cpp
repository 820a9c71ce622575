// A weight gradient's multiplication on AMX, and the copies of its operands.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC bug 105593
#include <immintrin.h>

#include <algorithm>

#include "cpu/conv/amx.h"
#include "cpu/conv/wgrad_bf16.h"

namespace fusedres::conv {
namespace {

// Tiles 0, 1: sums. 2: 16 filters of B. 3: 16 channels of A. All are 16 rows of 64 bytes. Four tiles, not
// eight, for the reason that tile_bf16_amx.cpp has.
void enter() {
  TileConfig config;
  for (int tile = 0; tile < 4; ++tile) {
    config.rows[tile] = 16;
    config.row_bytes[tile] = 64;
  }
  load_config(config);
}

void leave() { _tile_release(); }

void add_rows(const float* from, float* to, bool add) {
  for (int64_t i = 0; i < 16; ++i) {
    const __m512 sum = _mm512_load_ps(from + i * 16);
    float* row = to + i * kBlock;
    _mm512_storeu_ps(row, add ? _mm512_add_ps(sum, _mm512_loadu_ps(row)) : sum);
  }
}

// 32 channels by 16 filters: `b` points at the filters' half of each step.
void multiply_half(const WgradBf16Tile& work, const BFloat16* b, float* to) {
  _tile_zero(0);
  _tile_zero(1);
  const BFloat16* a = work.a;
  const int64_t pitch = work.a_pitch * 2;
  for (int64_t left = work.pixels; left > 0; left -= kBlock, a += kBlock, b += kBlock * kBlock) {
    _tile_loadd(2, b, 64);
    _tile_loadd(3, a, pitch);
    _tile_dpbf16ps(0, 3, 2);
    _tile_loadd(3, a + 16 * work.a_pitch, pitch);
    _tile_dpbf16ps(1, 3, 2);
  }
  alignas(64) float sums[2][256];
  _tile_stored(0, sums[0], 64);
  _tile_stored(1, sums[1], 64);
  add_rows(sums[0], to, work.add);
  add_rows(sums[1], to + 16 * kBlock, work.add);
}

void multiply(const WgradBf16Tile& work) {
  multiply_half(work, work.b, work.sums);
  multiply_half(work, work.b + kBlock * 16, work.sums + 16);
}

// 16 channels of one pixel as the upper halves of fp32.
inline __attribute__((always_inline)) __m512i channels_of(const BFloat16* pixel, int64_t channels) {
  if (pixel == nullptr || channels <= 0) return _mm512_setzero_si512();
  const auto mask = static_cast<__mmask16>(channels >= 16 ? 0xffff : (1 << channels) - 1);
  return _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, pixel)), 16);
}

// relu(x * scale + shift) of a pixel, rounded to bf16 where it was one. NaN passes.
inline __attribute__((always_inline)) __m512i activate(__m512i x, __m512 scale, __m512 shift) {
  const __m512 value = _mm512_add_ps(_mm512_mul_ps(_mm512_castsi512_ps(x), scale), shift);
  const __m512 positive = _mm512_max_ps(_mm512_setzero_ps(), value);
  const __m256i rounded = (__m256i)_mm512_cvtneps_pbh(positive);
  return _mm512_slli_epi32(_mm512_cvtepu16_epi32(rounded), 16);
}

// A dword for each channel: the first pixel's below the second's.
inline __attribute__((always_inline)) __m512i pair(__m512i first, __m512i second) {
  return _mm512_or_si512(_mm512_srli_epi32(first, 16), second);
}

// The transpose of 16 x 16 dwords: of pairs of rows, then of 2 x 2, of 4 x 4 and of 8 x 8 blocks.
inline __attribute__((always_inline)) void transpose_dwords(__m512i r[16]) {
  __m512i t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
  // r[4 i + j] holds, in its 128-bit lane l, column 4 l + j of rows 4 i to 4 i + 3.
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const __m512i low01 = _mm512_shuffle_i32x4(r[j], r[4 + j], 0x44);
    const __m512i high01 = _mm512_shuffle_i32x4(r[j], r[4 + j], 0xee);
    const __m512i low23 = _mm512_shuffle_i32x4(r[8 + j], r[12 + j], 0x44);
    const __m512i high23 = _mm512_shuffle_i32x4(r[8 + j], r[12 + j], 0xee);
    t[j] = _mm512_shuffle_i32x4(low01, low23, 0x88);
    t[4 + j] = _mm512_shuffle_i32x4(low01, low23, 0xdd);
    t[8 + j] = _mm512_shuffle_i32x4(high01, high23, 0x88);
    t[12 + j] = _mm512_shuffle_i32x4(high01, high23, 0xdd);
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) r[i] = t[i];
}

template <bool kActivate>
void transpose_block(
    const BFloat16* const* pixels, int64_t count, int64_t channels, Activation activation, BFloat16* to,
    int64_t pitch) {
  for (int64_t half = 0; half < kBlock; half += 16) {
    const int64_t own = std::clamp<int64_t>(channels - half, 0, 16);
    const auto mask = static_cast<__mmask16>((1 << own) - 1);
    __m512 scale{}, shift{};
    if constexpr (kActivate) {
      scale = _mm512_maskz_loadu_ps(mask, activation.scale + half);
      shift = _mm512_maskz_loadu_ps(mask, activation.shift + half);
    }
    const auto loaded = [&](const BFloat16* pixel) __attribute__((always_inline)) {
      if (pixel == nullptr) return _mm512_setzero_si512();
      const __m512i x = channels_of(pixel + half, own);
      return kActivate ? activate(x, scale, shift) : x;
    };
    for (int64_t p = 0; p < count; p += kBlock) {
      __m512i rows[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) rows[i] = pair(loaded(pixels[p + 2 * i]), loaded(pixels[p + 2 * i + 1]));
      transpose_dwords(rows);
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) _mm512_storeu_si512(to + (half + i) * pitch + p, rows[i]);
    }
  }
}

void transpose(
    const BFloat16* const* pixels, int64_t count, int64_t channels, Activation activation, BFloat16* to,
    int64_t pitch) {
  activation.scale != nullptr ? transpose_block<true>(pixels, count, channels, activation, to, pitch)
                              : transpose_block<false>(pixels, count, channels, activation, to, pitch);
}

void interleave(const BFloat16* const* pixels, int64_t count, int64_t channels, BFloat16* to) {
  for (int64_t p = 0; p < count; p += 2) {
    BFloat16* tile = to + p / kBlock * kBlock * kBlock + p % kBlock * 16;
    for (int64_t half = 0; half < kBlock; half += 16) {
      const BFloat16 *first = pixels[p], *second = pixels[p + 1];
      const __m512i row = pair(
          channels_of(first == nullptr ? first : first + half, channels - half),
          channels_of(second == nullptr ? second : second + half, channels - half));
      _mm512_storeu_si512(tile + half * kBlock, row);
    }
  }
}

void narrow(const float* sums, int64_t count, BFloat16* to) {
  for (int64_t i = 0; i < count; i += 16)
    _mm256_storeu_si256(
        reinterpret_cast<__m256i*>(to + i), (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(sums + i)));
}

}  // namespace

const WgradBf16Kernels kWgradBf16Amx = {enter, leave, multiply, transpose, narrow, interleave};

}  // namespace fusedres::conv
