// Element arithmetic that every kernel shares, host and device: conversion, affine, ReLU.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define FUSEDRES_HD __host__ __device__ __forceinline__
#else
#define FUSEDRES_HD inline __attribute__((always_inline))
#endif

namespace fusedres {

// The upper half of a float. A type of its own, so that kernels can be templates over their element.
struct BFloat16 {
  uint16_t bits;
};

// IEEE binary16.
struct Half {
  uint16_t bits;
};

FUSEDRES_HD float to_float(float x) { return x; }

FUSEDRES_HD float to_float(BFloat16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

FUSEDRES_HD float to_float(Half x) {
#if defined(__CUDA_ARCH__)
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(x.bits));
  return value;
#else
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000u) << 16, magnitude = x.bits & 0x7fffu;
  float value;
  if (magnitude < 0x400u) {  // subnormal: a multiple of 2^-24
    value = static_cast<float>(magnitude) * 0x1p-24f;
  } else {  // the exponent's bias goes from 15 to 127; infinity and NaN keep an exponent of ones
    const uint32_t bits = (magnitude << 13) + (magnitude < 0x7c00u ? 112u << 23 : 224u << 23);
    memcpy(&value, &bits, sizeof(value));
  }
  uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  bits |= sign;
  memcpy(&value, &bits, sizeof(value));
  return value;
#endif
}

template <typename T>
FUSEDRES_HD T from_float(float x);

template <>
FUSEDRES_HD float from_float<float>(float x) {
  return x;
}

// To nearest, ties to even; NaN stays NaN (adding to its mantissa could turn it into infinity).
template <>
FUSEDRES_HD BFloat16 from_float<BFloat16>(float x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  uint16_t rounded;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(rounded) : "f"(x));
  return {rounded};
#else
  uint32_t bits;
  memcpy(&bits, &x, sizeof(bits));
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>(0x7fc0)};
  return {static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
#endif
}

// To nearest, ties to even; beyond 65504 + 16 to infinity.
template <>
FUSEDRES_HD Half from_float<Half>(float x) {
#if defined(__CUDA_ARCH__)
  uint16_t rounded;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(rounded) : "f"(x));
  return {rounded};
#else
  uint32_t bits;
  memcpy(&bits, &x, sizeof(bits));
  const uint32_t sign = bits >> 16 & 0x8000u;
  bits &= 0x7fffffffu;
  uint32_t rounded;
  if (bits > 0x7f800000u) {
    rounded = 0x7e00u;
  } else if (bits >= 0x477ff000u) {
    rounded = 0x7c00u;
  } else if (bits < 0x38800000u) {  // below 2^-14: adding 1/2 leaves the multiple of 2^-24 in the low bits
    float magnitude;
    memcpy(&magnitude, &bits, sizeof(magnitude));
    magnitude += 0.5f;
    memcpy(&rounded, &magnitude, sizeof(rounded));
    rounded -= 0x3f000000u;
  } else {  // the exponent's bias goes from 127 to 15
    rounded = (bits - (112u << 23) + 0xfffu + (bits >> 13 & 1u)) >> 13;
  }
  return {static_cast<uint16_t>(rounded | sign)};
#endif
}

// y * s + t, rounded after the product and after the sum: forward and backward must form the same bits,
// and a constant channel (t = -y * s) exactly 0. An FMA would return the product's rounding error there.
FUSEDRES_HD float affine(float y, float s, float t) {
#if defined(__CUDA_ARCH__)
  return __fadd_rn(__fmul_rn(y, s), t);
#else
  return y * s + t;  // compiled with -ffp-contract=off
#endif
}

// x as it is once it has been written out as a T.
template <typename T>
FUSEDRES_HD float rounded_to(float x) {
  return to_float(from_float<T>(x));
}

// Whether x written out as a T is positive: ReLU's mask sees the activation as it is stored.
template <typename T>
FUSEDRES_HD bool rounds_positive(float x) {
  return to_float(from_float<T>(x)) > 0.0f;
}

// NaN passes, as in torch.
FUSEDRES_HD float relu(float x) { return x < 0.0f ? 0.0f : x; }

}  // namespace fusedres
