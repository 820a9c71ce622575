#include "plain_conv.h"

#include <algorithm>
#include <vector>

namespace fusedres::conv {

void plain_conv(
    const Filter& filter, int64_t images, int64_t height, int64_t width, const float* x, const float* w,
    double* sums) {
  const int64_t p = filter.out_height(height), q = filter.out_width(width), filters = filter.out_channels;
  const int64_t taps = filter.rows * filter.cols, inputs = filter.group_inputs();
  // (R, S, C / groups, K): what one input is multiplied by lies together.
  std::vector<double> by_tap(taps * inputs * filters);
  for (int64_t k = 0; k < filters; ++k)
    for (int64_t c = 0; c < inputs; ++c)
      for (int64_t tap = 0; tap < taps; ++tap)
        by_tap[(tap * inputs + c) * filters + k] = w[(k * inputs + c) * taps + tap];

  std::fill(sums, sums + images * p * q * filters, 0.0);
  for (int64_t tap = 0; tap < taps; ++tap)
    for (int64_t line = 0; line < images * p; ++line) {
      const int64_t n = line / p;
      const int64_t i = line % p * filter.stride_h - filter.pad_h + tap / filter.cols * filter.dilation_h;
      if (i < 0 || i >= height) continue;
      for (int64_t c = 0; c < inputs; ++c) {
        const double* of_input = by_tap.data() + (tap * inputs + c) * filters;
        for (int64_t column = 0; column < q; ++column) {
          const int64_t j = column * filter.stride_w - filter.pad_w + tap % filter.cols * filter.dilation_w;
          if (j < 0 || j >= width) continue;
          const float* pixel = x + ((n * height + i) * width + j) * filter.in_channels;
          double* out = sums + (line * q + column) * filters;
          for (int64_t group = 0; group < filter.groups; ++group) {
            const double value = pixel[group * inputs + c];
            const int64_t first = group * filter.group_filters();
            for (int64_t k = first; k < first + filter.group_filters(); ++k) out[k] += value * of_input[k];
          }
        }
      }
    }
}

}  // namespace fusedres::conv
