// Moments by csrc/cuda/bn_stats_kernel.cuh, against plain loops.
#include <cmath>

#include "cuda/bn_stats_kernel.cuh"
#include "program.h"

using namespace fusedres::cuda;

int main() {
  // Fewer rows than a block's threads would take, and no multiple of them.
  constexpr int64_t kRows = 1001, kChannels = 24;
  std::vector<float> y(kRows * kChannels);
  for (size_t i = 0; i < y.size(); ++i) y[i] = small_value(i);
  const DeviceArray<float> input(y);
  const Grid grid = row_grid(kRows, kChannels, {kVec<float>, kStatsRows, 2}, target());
  const size_t tiles = grid.blocks.x;
  const DeviceArray<float> count(tiles), mean(tiles * kChannels), m2(tiles * kChannels);
  const BnStatsParams<float> params{input.data, count.data, mean.data, m2.data, kRows, kChannels};
  launch("bn_stats", bn_stats_kernel<float, kVec<float>>, grid, target(), params);
  const auto n = count.values(), means = mean.values();
  size_t wrong = 0;
  for (int64_t c = 0; c < kChannels; ++c) {
    double sum = 0.0, rows = 0.0, exact = 0.0;
    for (size_t tile = 0; tile < tiles; ++tile) {
      rows += n[tile];
      sum += static_cast<double>(n[tile]) * means[tile * kChannels + c];
    }
    for (int64_t row = 0; row < kRows; ++row) exact += y[row * kChannels + c];
    // A mean is at most 1 and rounded once a merge, of which there are fewer than 64.
    wrong += !(rows == kRows && std::abs(sum - exact) <= 64 * 6e-8 * kRows);
  }
  return verdict(wrong, kChannels);
}
