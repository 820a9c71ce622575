// fp32 values as sums of bf16 parts, in the rows of AMX's tiles. Include only from *_amx.cpp.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace fusedres::conv {

constexpr int64_t kTileBytes = 16 * 64;  // of 16 pixels or filters

// The upper half of each value's bits, rounded to nearest.
inline __attribute__((always_inline)) __m512i rounded(__m512 x) {
  const __m512i bits = _mm512_add_epi32(_mm512_castps_si512(x), _mm512_set1_epi32(0x8000));
  return _mm512_and_si512(bits, _mm512_set1_epi32(static_cast<int>(0xffff0000)));
}

// The same of values that may be NaN, whose bits an addition could turn into a number's.
inline __attribute__((always_inline)) __m512i rounded_or_nan(__m512 x) {
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  return _mm512_mask_mov_epi32(rounded(x), nan, _mm512_set1_epi32(0x7fc00000));
}

inline __attribute__((always_inline)) __m512 without(__m512 x, __m512i part) {
  return _mm512_sub_ps(x, _mm512_castsi512_ps(part));
}

// A dword a lane: the first value's upper half below the second's.
inline __attribute__((always_inline)) void store_pairs(char* to, __m512i first, __m512i second) {
  _mm512_store_si512(to, _mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_srli_epi32(first, 16), second));
}

// A row of 64 bytes of each part's tile, which pairs value i of `a` with value i of `b`.
template <int kParts>
inline __attribute__((always_inline)) void split(__m512 a, __m512 b, char* out) {
  __m512i of_a = rounded_or_nan(a), of_b = rounded_or_nan(b);
  store_pairs(out, of_a, of_b);
#pragma GCC unroll 2
  for (int part = 1; part < kParts; ++part) {
    a = without(a, of_a), b = without(b, of_b);
    of_a = rounded(a), of_b = rounded(b);
    store_pairs(out + part * kTileBytes, of_a, of_b);
  }
}

}  // namespace fusedres::conv
