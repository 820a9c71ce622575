// Division of pixel numbers by sizes known at launch: a multiplication and a shift instead of 20
// instructions.
#pragma once

#include <cstdint>

#include "common/element.h"

namespace fusedres::cuda {

// n / divisor for 0 <= n < 2^31, exactly: with 2^shift the power of two not below the divisor and
// multiplier = floor(2^32 * (2^shift - divisor) / divisor) + 1, the quotient is (mulhi(n, multiplier) + n) >>
// shift.
//   Granlund, Montgomery, "Division by invariant integers using multiplication", PLDI 1994, figure 4.1.
struct FastDivision {
  uint32_t divisor;
  uint32_t multiplier;
  uint32_t shift;

  FastDivision() = default;

  explicit FastDivision(uint32_t value) : divisor(value), multiplier(0), shift(0) {
    while ((uint64_t{1} << shift) < value) ++shift;
    const uint64_t excess = (uint64_t{1} << shift) - value;
    multiplier = static_cast<uint32_t>((excess << 32) / value + 1);
  }

  FUSEDRES_HD uint32_t quotient(uint32_t n) const {
#if defined(__CUDA_ARCH__)
    const uint32_t high = __umulhi(n, multiplier);
#else
    const uint32_t high = static_cast<uint32_t>((uint64_t{n} * multiplier) >> 32);
#endif
    return (high + n) >> shift;
  }

  // The quotient; `remainder` is what is left.
  FUSEDRES_HD uint32_t divide(uint32_t n, uint32_t& remainder) const {
    const uint32_t q = quotient(n);
    remainder = n - q * divisor;
    return q;
  }
};

}  // namespace fusedres::cuda
