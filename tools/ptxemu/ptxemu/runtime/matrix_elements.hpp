// Elements of matrix operands as floats.
#pragma once
#include "internal.hpp"

#include <math.h>

inline float fp8_to_float(uint8_t v, bool e5) {
  uint16_t h;
  if (e5) {
    h = (uint16_t)v << 8;
    return h2f(h);
  }
  int sign = v >> 7, exponent = v >> 3 & 15, mantissa = v & 7;
  if ((v & 127) == 127) return NAN;
  float r = exponent ? ldexpf(1 + mantissa / 8.0f, exponent - 7) : ldexpf(mantissa / 8.0f, -6);
  return sign ? -r : r;
}

// element i of an array of a type of enum MatrixType
inline float matrix_element(const void *p, int type, int i) {
  switch (type) {
  case MT_F16: return h2f(((const uint16_t *)p)[i]);
  case MT_BF16: return bf2f(((const uint16_t *)p)[i]);
  case MT_F32: return bits_f32(((const uint32_t *)p)[i] & 0xffffe000u); // tf32 has 10 bits of significand
  case MT_S8: return ((const int8_t *)p)[i];
  case MT_U8: return ((const uint8_t *)p)[i];
  case MT_E4M3: return fp8_to_float(((const uint8_t *)p)[i], false);
  case MT_E5M2: return fp8_to_float(((const uint8_t *)p)[i], true);
  }
  return 0;
}

inline int element_bits(int type) {
  switch (type) {
  case MT_F16:
  case MT_BF16: return 16;
  case MT_F32: return 32;
  case MT_F64: return 64;
  }
  return 8;
}
