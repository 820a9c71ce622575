// Sums over rows, per channel: fp32 within a group of rows, fp64 from group to group.
#pragma once

#include "cpu/kernels/vec.h"

namespace fusedres::FUSEDRES_ISA {

// Few enough that the rows of three tensors stay apart in L1 (4 x 3 lines in a set of 12 when the rows' pitch
// is a power of two; with 16 rows a bf16 reduction at C = 512 ran at half the speed), and the fp64 adds still
// cost less than a quarter of the work on the rows.
constexpr int64_t kGroup = 4;

// Rows are read a vector at a time, which no hardware prefetcher follows: each group asks for the next one's
// lines (past the end of a tensor that is harmless).
template <typename T>
FUSEDRES_INLINE void prefetch(const T* p) {
  __builtin_prefetch(p, 0, 2);
}

// body(first row, rows): whole groups with a constant number of rows, then what remains
template <int64_t kRows = kGroup, typename Body>
FUSEDRES_INLINE void for_groups(int64_t begin, int64_t end, Body&& body) {
  int64_t row = begin;
  for (; row + kRows <= end; row += kRows) body(row, kRows);
  if (row < end) body(row, end - row);
}

// sums[i] += x[i] for n lanes; whole vectors in vector instructions, a fifth of the time of a loop over lanes
template <typename Lanes>
FUSEDRES_INLINE void add_to(double* sums, Lanes x, int n) {
  const DoubleVec wide = __builtin_convertvector(x, DoubleVec);
  store_packed(sums, load_packed<DoubleVec>(sums, n) + wide, n);
}

}  // namespace fusedres::FUSEDRES_ISA
