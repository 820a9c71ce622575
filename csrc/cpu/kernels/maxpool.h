// Maxima over 3 x 3 windows, stride 2, padding 1, of values that are activated already.
#pragma once

#include <limits>

#include "cpu/kernels/params.h"
#include "cpu/kernels/vec.h"

namespace fusedres::FUSEDRES_ISA {

// NaN above everything, as torch.
FUSEDRES_INLINE Vec larger(Vec a, Vec b) { return ((b > a) | (b != b)) ? b : a; }

// A column lies in two windows; its maximum is taken once.
template <typename T>
void maxpool_kernel(const Maxpool<T>& k, int64_t begin, int64_t end) {
  const Vec least = splat(-std::numeric_limits<float>::infinity());
  const int64_t line = k.width * k.channels;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t middle = 2 * (row % k.pooled_height);
    const T* x = k.x + (row / k.pooled_height * k.height + middle) * line;
    const int64_t above = middle > 0 ? line : 0, below = middle + 1 < k.height ? line : 0;
    T* out = k.out + row * k.pooled_width * k.channels;
    for_channels(k.channels, [&](int64_t c, int n) __attribute__((always_inline)) {
      const auto column = [&](int64_t w) __attribute__((always_inline)) {
        const T* at = x + w * k.channels + c;
        return larger(larger(load(at - above, n), load(at, n)), load(at + below, n));
      };
      Vec left = least;
      for (int64_t q = 0; q < k.pooled_width; ++q) {
        const Vec right = 2 * q + 1 < k.width ? column(2 * q + 1) : least;
        store(out + q * k.channels + c, larger(larger(left, column(2 * q)), right), n);
        left = right;
      }
    });
  }
}

}  // namespace fusedres::FUSEDRES_ISA
