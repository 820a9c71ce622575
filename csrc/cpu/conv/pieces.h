// How the work of a phase is cut into chunks: a share for each thread, and each share into pieces.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "cpu/conv/shape.h"

namespace fusedres::conv {

// A share is taken in pieces that get smaller, halves and quarters of it and at last eighths, so that a
// thread that has done its own finds something to take over, and the last to end ends soon after. On a shared
// server one core is often a quarter slower than the other for seconds: of two equal pieces, or four, none
// would be left over then.
constexpr int64_t kPieces = 4;
constexpr int64_t kEighths = 8;

// Chunks of a phase whose work is cut like this.
inline int64_t piece_count(int64_t threads) { return threads == 1 ? 1 : threads * kPieces; }

// Of `count` things, those in the share that a chunk is a piece of.
inline Range share_of(int64_t count, int64_t chunk, int64_t threads) {
  return threads == 1 ? Range{0, count} : share(count, chunk / kPieces, threads);
}

// Those of a share that are in the piece itself; there may be none.
inline Range piece_of(Range share, int64_t chunk, int64_t threads) {
  if (threads == 1) return share;
  constexpr int64_t kEnds[kPieces + 1] = {0, 4, 6, 7, kEighths};
  const int64_t piece = chunk % kPieces;
  return {
      share.begin + share.size() * kEnds[piece] / kEighths,
      share.begin + share.size() * kEnds[piece + 1] / kEighths};
}

inline Range piece(int64_t count, int64_t chunk, int64_t threads) {
  return piece_of(share_of(count, chunk, threads), chunk, threads);
}

// In how many parts things are cut, each alike, so that a share of so many can be cut in eighths.
inline int64_t parts_of_each(int64_t in_share, int64_t most) {
  return std::clamp<int64_t>(
      ceil_div(kEighths, std::max<int64_t>(in_share, 1)), 1, std::max<int64_t>(most, 1));
}

// A number that no other plan has. What a thread holds ready for its next piece (packed tiles, transformed
// patches) bears the number of the plan it belongs to.
inline uint64_t new_serial() {
  static std::atomic<uint64_t> serials{0};
  return serials.fetch_add(1, std::memory_order_relaxed) + 1;
}

// Visit cells, numbered row by row, of a grid of `cols` columns as rectangles: visit(rows, cols).
template <class Visit>
void visit_cells(Range cells, int64_t cols, const Visit& visit) {
  while (cells.begin < cells.end) {
    const int64_t row = cells.begin / cols, col = cells.begin % cols;
    if (col == 0 && cells.size() >= cols) {
      const int64_t rows = cells.size() / cols;
      visit(Range{row, row + rows}, Range{0, cols});
      cells.begin += rows * cols;
    } else {
      const int64_t count = std::min(cols - col, cells.size());
      visit(Range{row, row + 1}, Range{col, col + count});
      cells.begin += count;
    }
  }
}

}  // namespace fusedres::conv
