// The end of a ResNet: the mean of each channel over an image's pixels, and a linear layer of the means.
#pragma once

#include <algorithm>

#include "cpu/kernels/params.h"
#include "cpu/kernels/row_sums.h"

namespace fusedres::FUSEDRES_ISA {

constexpr int64_t kMeansGroup = 8;  // rows summed in fp32; of one tensor they stay apart in L1

template <typename T>
void channel_means_kernel(const ChannelMeans<T>& k, int64_t begin, int64_t end) {
  const int64_t slices = (k.channels + kMeansSlice - 1) / kMeansSlice;
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t image = unit / slices, first = unit % slices * kMeansSlice;
    const int64_t channels = std::min(kMeansSlice, k.channels - first);
    const T* x = k.x + image * k.pixels * k.channels + first;
    double sums[kMeansSlice] = {};
    for_groups<kMeansGroup>(0, k.pixels, [&](int64_t row, int64_t rows) __attribute__((always_inline)) {
      for_channels(channels, [&](int64_t c, int n) __attribute__((always_inline)) {
        Vec sum{};
        for (int64_t i = 0; i < rows; ++i) {
          const T* values = x + (row + i) * k.channels + c;
          prefetch(values + kMeansGroup * k.channels);
          sum += load(values, n);
        }
        add_to(sums + c, sum, n);
      });
    });
    float* means = k.means + image * k.channels + first;
    for (int64_t c = 0; c < channels; ++c) means[c] = static_cast<float>(sums[c] / k.pixels);
  }
}

constexpr int kDotLanes = 16;  // sums of one dot product, on every ISA: the bits are the same
constexpr int kDotVectors = kDotLanes / kLanes;
constexpr int kDotImages =
    kDotVectors == 1 ? 4 : 1;  // that share a load of the weights: 16 sums in registers

FUSEDRES_INLINE float sum_of(const Vec (&sums)[kDotVectors]) {
  float lanes[kDotLanes];
  for (int v = 0; v < kDotVectors; ++v) store(lanes + v * kLanes, sums[v], kLanes);
  for (int half = kDotLanes / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  return lanes[0];
}

// kRows rows of w by kImages rows of x.
template <int kRows, int kImages, typename T>
FUSEDRES_INLINE void linear_block(const Linear<T> k, int64_t row, int64_t image) {
  const float* x = k.x + image * k.in;
  const T* w = k.w + row * k.in;
  Vec sums[kRows][kImages][kDotVectors] = {};
  const auto add = [&](int64_t c, int v, int n) __attribute__((always_inline)) {
    Vec values[kImages];
    for (int i = 0; i < kImages; ++i) values[i] = load(x + i * k.in + c, n);
    for (int r = 0; r < kRows; ++r) {
      const Vec weights = load(w + r * k.in + c, n);
      for (int i = 0; i < kImages; ++i) sums[r][i][v] += values[i] * weights;
    }
  };
  int64_t c = 0;
  for (; c + kDotLanes <= k.in; c += kDotLanes)
    for (int v = 0; v < kDotVectors; ++v) add(c + v * kLanes, v, kLanes);
  for (int v = 0; c < k.in; ++v, c += kLanes)
    add(c, v, static_cast<int>(std::min<int64_t>(kLanes, k.in - c)));
  for (int i = 0; i < kImages; ++i)
    for (int r = 0; r < kRows; ++r) {
      const float bias = k.bias != nullptr ? k.bias[row + r] : 0.0f;
      store(k.out + (image + i) * k.rows + row + r, splat(sum_of(sums[r][i]) + bias), 1);
    }
}

template <int kRows, typename T>
FUSEDRES_INLINE void linear_rows(const Linear<T> k, int64_t row) {
  int64_t image = 0;
  for (; image + kDotImages <= k.images; image += kDotImages) linear_block<kRows, kDotImages>(k, row, image);
  for (; image < k.images; ++image) linear_block<kRows, 1>(k, row, image);
}

template <typename T>
void linear_kernel(const Linear<T>& k, int64_t begin, int64_t end) {
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t first = unit * kLinearRows, last = std::min(first + kLinearRows, k.rows);
    if (last - first == kLinearRows) {
      linear_rows<kLinearRows>(k, first);
    } else {
      for (int64_t row = first; row < last; ++row) linear_rows<1>(k, row);
    }
  }
}

}  // namespace fusedres::FUSEDRES_ISA
