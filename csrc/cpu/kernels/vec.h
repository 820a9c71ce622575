// A vector of fp32 lanes as wide as the ISA this file is compiled for, and its loads and stores.
//
// Lanes are channels, and each lane computes what scalar code would: the results do not depend on the
// width. Included by kernels_<isa>.cpp alone, inside which FUSEDRES_ISA names the namespace.
#pragma once

#include <cstdint>
#include <cstring>

#include "common/element.h"

namespace fusedres::FUSEDRES_ISA {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float Vec __attribute__((vector_size(4 * kLanes)));
typedef double DoubleVec __attribute__((vector_size(8 * kLanes)));
typedef int32_t IntVec __attribute__((vector_size(4 * kLanes)));
typedef uint32_t UintVec __attribute__((vector_size(4 * kLanes)));
typedef uint16_t HalfBits __attribute__((vector_size(2 * kLanes)));

#define FUSEDRES_INLINE inline __attribute__((always_inline))

FUSEDRES_INLINE Vec splat(float x) { return x - Vec{}; }

template <typename To, typename From>
FUSEDRES_INLINE To bit_cast(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof(to));
  return to;
}

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

FUSEDRES_INLINE Vec widen(HalfBits bits) {
  return bit_cast<Vec>(__builtin_convertvector(bits, UintVec) << 16);
}

// to nearest, ties to even, NaN kept: from_float<BFloat16> of common/element.h, a vector at a time
FUSEDRES_INLINE HalfBits narrow(Vec x) {
  const UintVec bits = bit_cast<UintVec>(x);
  const UintVec rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const IntVec is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
  return __builtin_convertvector(is_nan ? UintVec{} + 0x7fc0u : rounded, HalfBits);
}

FUSEDRES_INLINE Vec load(const float* p, int n) { return load_packed<Vec>(p, n); }
FUSEDRES_INLINE Vec load(const BFloat16* p, int n) { return widen(load_packed<HalfBits>(p, n)); }
FUSEDRES_INLINE void store(float* p, Vec x, int n) { store_packed(p, x, n); }
FUSEDRES_INLINE void store(BFloat16* p, Vec x, int n) { store_packed(p, narrow(x), n); }

// x as it will be read back from an activation of type T
template <typename T>
FUSEDRES_INLINE Vec rounded_to(Vec x) {
  if constexpr (sizeof(T) == 2) {
    return widen(narrow(x));
  } else {
    return x;
  }
}

FUSEDRES_INLINE Vec affine(Vec y, Vec s, Vec t) { return y * s + t; }
FUSEDRES_INLINE Vec relu(Vec x) { return x < Vec{} ? Vec{} : x; }
FUSEDRES_INLINE Vec where_positive(Vec condition, Vec x) { return condition > Vec{} ? x : Vec{}; }

// x where `condition`, rounded to T, is positive. What rounds to a positive bf16 is what exceeds 2^-134, half of
// the smallest one (the tie goes to the even 0): a comparison instead of a rounding.
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
