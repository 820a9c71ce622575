// Per-chunk count, mean and M2, in one pass over the rows.
//
// A tile's sums are those of y - shift, where the shift is the mean of the tiles before it (of the first
// tile: its first row). So the differences are small where the mean is not, and exactly 0 in a constant
// channel. The first tile is summed in fp64: its shift is no mean yet, and where it is the only one no other
// tile's rounding errors average with its own.
#pragma once

#include <algorithm>
#include <type_traits>
#include <vector>

#include "common/moments.h"
#include "cpu/kernels/params.h"
#include "cpu/kernels/row_sums.h"

namespace fusedres::FUSEDRES_ISA {

constexpr int64_t kStatsTile = 128;  // rows between two merges: they cost about 1/20 of the sums
constexpr int64_t kStatsGroup = 8;   // of one tensor, twice the rows of a group stay apart in L1

template <bool kWide, typename T>
FUSEDRES_INLINE void shifted_sums(
    const BnStats<T> k, int64_t row, int64_t rows, const float* shift, double* sum, double* square) {
  using Lanes = std::conditional_t<kWide, DoubleVec, Vec>;
  for_channels(k.channels, [&](int64_t c, int n) __attribute__((always_inline)) {
    const T* y = k.y + row * k.channels + c;
    const Lanes origin = __builtin_convertvector(load(shift + c, n), Lanes);
    Lanes s{}, q{};
    for (int64_t i = 0; i < rows; ++i) {
      prefetch(y + (kStatsGroup + i) * k.channels);
      const Lanes d = __builtin_convertvector(load(y + i * k.channels, n), Lanes) - origin;
      s += d;
      q += d * d;
    }
    add_to(sum + c, s, n);
    add_to(square + c, q, n);
  });
}

template <typename T>
void bn_stats_chunk(const BnStats<T> k, int64_t begin, int64_t end, float* out_mean, float* out_m2) {
  const int64_t channels = k.channels;
  std::vector<double> scratch(4 * channels, 0.0);
  double *mean = scratch.data(), *m2 = mean + channels, *sum = m2 + channels, *square = sum + channels;
  std::vector<float> shift(channels);
  for (int64_t c = 0; c < channels; ++c) shift[c] = to_float(k.y[begin * channels + c]);

  for (int64_t row = begin; row < end; row += kStatsTile) {
    const int64_t tile_end = std::min(row + kStatsTile, end);
    std::fill(sum, sum + 2 * channels, 0.0);
    for_groups<kStatsGroup>(row, tile_end, [&](int64_t first, int64_t rows) __attribute__((always_inline)) {
      if (row == begin) {
        shifted_sums<true>(k, first, rows, shift.data(), sum, square);
      } else {
        shifted_sums<false>(k, first, rows, shift.data(), sum, square);
      }
    });
    const double count = static_cast<double>(tile_end - row), share = 1.0 / count;
    const ChanMerge<double> merge(static_cast<double>(row - begin), count);
    for (int64_t c = 0; c < channels; ++c) {
      const double step = sum[c] * share;
      merge(mean[c], m2[c], shift[c] + step, std::max(square[c] - sum[c] * step, 0.0));
      shift[c] = static_cast<float>(mean[c]);
    }
  }
  for (int64_t c = 0; c < channels; ++c) {
    out_mean[c] = static_cast<float>(mean[c]);
    out_m2[c] = static_cast<float>(m2[c]);
  }
}

template <typename T>
void bn_stats_kernel(const BnStats<T>& k, int64_t begin_chunk, int64_t end_chunk) {
  for (int64_t chunk = begin_chunk; chunk < end_chunk; ++chunk) {
    const int64_t begin = chunk * k.chunk_rows, end = std::min(begin + k.chunk_rows, k.rows);
    k.count[chunk] = static_cast<float>(end - begin);
    bn_stats_chunk(k, begin, end, k.mean + chunk * k.channels, k.m2 + chunk * k.channels);
  }
}

}  // namespace fusedres::FUSEDRES_ISA
