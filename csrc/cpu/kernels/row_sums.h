// Sums over rows, per channel: fp32 within a group of rows, fp64 from group to group.
#pragma once

#include "cpu/kernels/vec.h"

namespace fusedres::FUSEDRES_ISA {

// Long enough that the fp64 add costs an eighth of one a row, short enough that the error of the fp32 sums
// stays below two rounding errors of the group's sum.
constexpr int64_t kGroup = 8;

// body(first row, rows): whole groups with a constant number of rows, then what remains
template <typename Body>
FUSEDRES_INLINE void for_groups(int64_t begin, int64_t end, Body&& body) {
  int64_t row = begin;
  for (; row + kGroup <= end; row += kGroup) body(row, kGroup);
  if (row < end) body(row, end - row);
}

FUSEDRES_INLINE void add_to(double* sums, Vec x, int n) {
  float lanes[kLanes];
  memcpy(lanes, &x, sizeof(lanes));
  for (int i = 0; i < n; ++i) sums[i] += lanes[i];
}

}  // namespace fusedres::FUSEDRES_ISA
