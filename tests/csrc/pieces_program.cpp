// Shares and their pieces (csrc/cpu/conv/pieces.h): every thing is in one piece, every cell visited once.
#include <cstdio>
#include <vector>

#include "cpu/conv/pieces.h"

namespace fusedres::conv {
namespace {

int failures = 0;

void expect(bool held, const char* what, int64_t count, int64_t threads) {
  if (held) return;
  std::printf("%s: %ld things, %ld threads\n", what, static_cast<long>(count), static_cast<long>(threads));
  ++failures;
}

void check_pieces(int64_t count, int64_t threads) {
  int64_t next = 0;
  for (int64_t chunk = 0; chunk < piece_count(threads); ++chunk) {
    const Range share = share_of(count, chunk, threads), part = piece(count, chunk, threads);
    expect(part.begin == next && part.end >= part.begin, "pieces in order", count, threads);
    expect(part.begin >= share.begin && part.end <= share.end, "within the share", count, threads);
    if (threads > 1 && (chunk + 1) % kPieces == 0)
      expect(part.size() <= ceil_div(share.size(), kEighths), "small at the end", count, threads);
    next = part.end;
  }
  expect(next == count, "all of them", count, threads);
}

void check_cells(int64_t rows, int64_t cols, int64_t threads) {
  std::vector<int> visits(rows * cols, 0);
  for (int64_t chunk = 0; chunk < piece_count(threads); ++chunk)
    visit_cells(piece(rows * cols, chunk, threads), cols, [&](Range in_rows, Range in_cols) {
      for (int64_t row = in_rows.begin; row < in_rows.end; ++row)
        for (int64_t col = in_cols.begin; col < in_cols.end; ++col) ++visits[row * cols + col];
    });
  for (const int times : visits) expect(times == 1, "cells once", rows * cols, threads);
}

}  // namespace
}  // namespace fusedres::conv

int main() {
  using namespace fusedres::conv;
  for (int64_t threads = 1; threads <= 7; ++threads) {
    for (int64_t count = 0; count <= 70; ++count) check_pieces(count, threads);
    for (int64_t rows = 1; rows <= 9; ++rows)
      for (int64_t cols = 1; cols <= 9; ++cols) check_cells(rows, cols, threads);
  }
  for (int64_t share = 1; share <= 20; ++share)
    expect(share * parts_of_each(share, 100) >= kEighths, "enough for eighths", share, 1);
  expect(parts_of_each(1, 3) == 3, "no more parts than there are", 1, 1);
  std::puts(failures == 0 ? "all held" : "failed");
  return failures == 0 ? 0 : 1;
}
