// Products and sums of vectors, rounded once where the CPU has an FMA. Include only from *_<isa>.cpp.
#pragma once

#include "cpu/kernels/vec.h"

namespace fusedres::FUSEDRES_ISA {

// a * b + sum
FUSEDRES_INLINE Vec multiply_add(Vec a, Vec b, Vec sum) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, sum);
#elif defined(__FMA__)
  return _mm256_fmadd_ps(a, b, sum);
#else
  return a * b + sum;
#endif
}

// from - a * b
FUSEDRES_INLINE Vec subtract_product(Vec a, Vec b, Vec from) {
#if defined(__AVX512F__)
  return _mm512_fnmadd_ps(a, b, from);
#elif defined(__FMA__)
  return _mm256_fnmadd_ps(a, b, from);
#else
  return from - a * b;
#endif
}

}  // namespace fusedres::FUSEDRES_ISA
