// A vector of fp32 lanes as wide as the ISA this file is compiled for, and its loads and stores.
//
// Lanes are channels, and each lane computes what scalar code would: the results do not depend on the
// width. Included by kernels_<isa>.cpp alone, inside which FUSEDRES_ISA names the namespace.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC bug 105593: in its own intrinsics
#include <immintrin.h>
#pragma GCC diagnostic pop
#else
#include <immintrin.h>
#endif
#endif

#include "common/element.h"

namespace fusedres::FUSEDRES_ISA {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float Vec __attribute__((vector_size(4 * kLanes)));
typedef double DoubleVec __attribute__((vector_size(8 * kLanes)));
typedef int32_t IntVec __attribute__((vector_size(4 * kLanes)));
typedef uint32_t UintVec __attribute__((vector_size(4 * kLanes)));
typedef uint16_t HalfBits __attribute__((vector_size(2 * kLanes)));
typedef uint8_t ByteVec __attribute__((vector_size(kLanes)));

#define FUSEDRES_INLINE inline __attribute__((always_inline))

FUSEDRES_INLINE Vec splat(float x) { return x - Vec{}; }

template <typename To, typename From>
FUSEDRES_INLINE To bit_cast(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof(to));
  return to;
}

#if defined(__AVX512F__)
FUSEDRES_INLINE __mmask16 first_lanes(int n) { return static_cast<__mmask16>((1u << n) - 1); }
#elif defined(__AVX2__)
FUSEDRES_INLINE __m256i first_lanes(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
#endif

// n lanes from memory; the others are 0. n is a constant kLanes everywhere but at a row's end.
template <typename Packed, typename T>
FUSEDRES_INLINE Packed load_packed(const T* p, int n) {
  Packed packed{};
  memcpy(&packed, p, n == kLanes ? sizeof(packed) : n * sizeof(T));
  return packed;
}

template <typename Packed, typename T>
FUSEDRES_INLINE void store_packed(T* p, const Packed& packed, int n) {
  memcpy(p, &packed, n == kLanes ? sizeof(packed) : n * sizeof(T));
}

// Lanes to 32 bits and back. Spelled out where there is an instruction for it: GCC 12 takes four for a
// __builtin_convertvector of 16 lanes, which halved the speed of every bf16 kernel.
FUSEDRES_INLINE UintVec widen_lanes(HalfBits x) {
#if defined(__AVX512F__)
  return bit_cast<UintVec>(_mm512_cvtepu16_epi32(bit_cast<__m256i>(x)));
#elif defined(__AVX2__)
  return bit_cast<UintVec>(_mm256_cvtepu16_epi32(bit_cast<__m128i>(x)));
#else
  return __builtin_convertvector(x, UintVec);
#endif
}

FUSEDRES_INLINE UintVec widen_lanes(ByteVec x) {
#if defined(__AVX512F__)
  return bit_cast<UintVec>(_mm512_cvtepu8_epi32(bit_cast<__m128i>(x)));
#elif defined(__AVX2__)
  return bit_cast<UintVec>(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(bit_cast<int64_t>(x))));
#else
  return __builtin_convertvector(x, UintVec);
#endif
}

FUSEDRES_INLINE HalfBits narrow_lanes(UintVec x) {  // of values below 2^16
#if defined(__AVX512F__)
  return bit_cast<HalfBits>(_mm512_cvtepi32_epi16(bit_cast<__m512i>(x)));
#elif defined(__AVX2__)
  const __m256i lanes = bit_cast<__m256i>(x);
  return bit_cast<HalfBits>(
      _mm_packus_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1)));
#else
  return __builtin_convertvector(x, HalfBits);
#endif
}

FUSEDRES_INLINE Vec widen(HalfBits bits) { return bit_cast<Vec>(widen_lanes(bits) << 16); }

// The bits of x rounded to the upper 16: to nearest, ties to even, NaN kept. What is below them is left over.
// from_float<BFloat16> of common/element.h, a vector at a time
FUSEDRES_INLINE UintVec rounded_bits(Vec x) {
  const UintVec bits = bit_cast<UintVec>(x);
  const UintVec rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
  return x == x ? rounded : UintVec{} + 0x7fc00000u;
}

// Some lanes of fp32 in one masked instruction where there is one: a memcpy of n values is a call, which made
// Winograd's transforms of 24 channels take 1.4 to 2.7 times as long.
FUSEDRES_INLINE Vec load_some(const float* p, int n) {
#if defined(__AVX512F__)
  return _mm512_maskz_loadu_ps(first_lanes(n), p);
#elif defined(__AVX2__)
  return _mm256_maskload_ps(p, first_lanes(n));
#else
  return load_packed<Vec>(p, n);
#endif
}

FUSEDRES_INLINE void store_some(float* p, Vec x, int n) {
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, first_lanes(n), x);
#elif defined(__AVX2__)
  _mm256_maskstore_ps(p, first_lanes(n), x);
#else
  store_packed(p, x, n);
#endif
}

FUSEDRES_INLINE Vec load(const float* p, int n) {
  return n == kLanes ? load_packed<Vec>(p, kLanes) : load_some(p, n);
}
FUSEDRES_INLINE Vec load(const BFloat16* p, int n) { return widen(load_packed<HalfBits>(p, n)); }
FUSEDRES_INLINE void store(float* p, Vec x, int n) {
  n == kLanes ? store_packed(p, x, kLanes) : store_some(p, x, n);
}
FUSEDRES_INLINE void store(BFloat16* p, Vec x, int n) {
#if defined(__AVX512BF16__)  // takes denormals for zeros
  store_packed(p, bit_cast<HalfBits>(_mm512_cvtneps_pbh(x)), n);
#else
  store_packed(p, narrow_lanes(rounded_bits(x) >> 16), n);
#endif
}

// The same past the caches, for outputs larger than those: a line that is written whole need not be read
// first (51 MB copied: 25 GB/s, not 16). p is aligned to the vector where `past_caches` holds; a row's end
// never is whole.
template <typename Packed, typename T>
FUSEDRES_INLINE void stream_packed(T* p, const Packed& packed, int n) {
#if defined(__AVX512F__)
  if constexpr (sizeof(Packed) == 64)
    return _mm512_stream_si512(reinterpret_cast<__m512i*>(p), bit_cast<__m512i>(packed));
#endif
#if defined(__AVX2__)
  if constexpr (sizeof(Packed) == 32)
    return _mm256_stream_si256(reinterpret_cast<__m256i*>(p), bit_cast<__m256i>(packed));
  if constexpr (sizeof(Packed) == 16)
    return _mm_stream_si128(reinterpret_cast<__m128i*>(p), bit_cast<__m128i>(packed));
#endif
  store_packed(p, packed, n);
}

FUSEDRES_INLINE void store(float* p, Vec x, int n, bool past_caches) {
  past_caches ? stream_packed(p, x, n) : store_packed(p, x, n);
}
FUSEDRES_INLINE void store(BFloat16* p, Vec x, int n, bool past_caches) {
  const HalfBits bits = narrow_lanes(rounded_bits(x) >> 16);
  past_caches ? stream_packed(p, bits, n) : store_packed(p, bits, n);
}

// Streamed stores are weakly ordered: another thread reads them after this.
FUSEDRES_INLINE void finish_streaming() {
#if defined(__AVX2__)
  _mm_sfence();
#endif
}

// x as it will be read back from an activation of type T
template <typename T>
FUSEDRES_INLINE Vec rounded_to(Vec x) {
  if constexpr (sizeof(T) == 2) {
    return bit_cast<Vec>(rounded_bits(x) & 0xffff0000u);
  } else {
    return x;
  }
}

// The larger of both; of an x that is NaN, that, as torch's ReLU has it. The compiler takes two instructions.
FUSEDRES_INLINE Vec at_least(Vec floor, Vec x) {
#if defined(__AVX512F__)
  return _mm512_max_ps(floor, x);
#elif defined(__AVX2__)
  return _mm256_max_ps(floor, x);
#else
  return x < floor ? floor : x;
#endif
}

FUSEDRES_INLINE Vec affine(Vec y, Vec s, Vec t) { return y * s + t; }
FUSEDRES_INLINE Vec relu(Vec x) { return x < Vec{} ? Vec{} : x; }
FUSEDRES_INLINE Vec where_positive(Vec condition, Vec x) { return condition > Vec{} ? x : Vec{}; }

// x where `condition`, rounded to T, is positive. What rounds to a positive bf16 is what exceeds 2^-134, half
// of the smallest one (the tie goes to the even 0): a comparison instead of a rounding.
template <typename T>
FUSEDRES_INLINE Vec where_rounds_positive(Vec condition, Vec x) {
  return condition > splat(sizeof(T) == 2 ? 0x1p-134f : 0.0f) ? x : Vec{};
}

// body(first channel, lanes): whole vectors with a constant number of lanes, then what remains
template <typename Body>
FUSEDRES_INLINE void for_channels(int64_t channels, Body&& body) {
  int64_t c = 0;
  for (; c + kLanes <= channels; c += kLanes) body(c, kLanes);
  if (c < channels) body(c, static_cast<int>(channels - c));
}

}  // namespace fusedres::FUSEDRES_ISA
