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

FUSEDRES_HD float to_float(float x) { return x; }

FUSEDRES_HD float to_float(BFloat16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float value;
  memcpy(&value, &bits, sizeof(value));
  return value;
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
  uint32_t bits;
  memcpy(&bits, &x, sizeof(bits));
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>(0x7fc0)};
  return {static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
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

// NaN passes, as in torch.
FUSEDRES_HD float relu(float x) { return x < 0.0f ? 0.0f : x; }

}  // namespace fusedres
