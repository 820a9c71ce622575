// The stem: maxpool(relu(y * s + t)) over 3 x 3 windows, stride 2, padding 1, and its backward.
#pragma once

#include <algorithm>
#include <limits>

#include "cpu/kernels/params.h"
#include "cpu/kernels/row_sums.h"

namespace fusedres::FUSEDRES_ISA {

FUSEDRES_INLINE IntVec load_index(const uint8_t* p, int n) {
  return bit_cast<IntVec>(widen_lanes(load_packed<ByteVec>(p, n)));
}

FUSEDRES_INLINE void store_index(uint8_t* p, IntVec index, int n) {
  store_packed(p, __builtin_convertvector(index, ByteVec), n);
}

// One pooled pixel: the first maximum in row-major order, NaN above everything, as torch.
template <typename T>
FUSEDRES_INLINE void pool_pixel(const AffineActMaxpool<T> k, int64_t image, int64_t p, int64_t q) {
  const int64_t h0 = 2 * p - 1, w0 = 2 * q - 1;
  const int64_t r_begin = h0 < 0 ? 1 : 0, r_end = std::min<int64_t>(3, k.height - h0);
  const int64_t s_begin = w0 < 0 ? 1 : 0, s_end = std::min<int64_t>(3, k.width - w0);
  const T* y = k.y + (image * k.height * k.width + h0 * k.width + w0) * k.channels;
  const int64_t at = ((image * k.pooled_height + p) * k.pooled_width + q) * k.channels;
  for_channels(k.channels, [&](int64_t c, int n) __attribute__((always_inline)) {
    const Vec scale = load(k.s + c, n), shift = load(k.t + c, n);
    Vec best = splat(-std::numeric_limits<float>::infinity());
    IntVec index{};
    for (int64_t r = r_begin; r < r_end; ++r) {
      for (int64_t s = s_begin; s < s_end; ++s) {
        const Vec x = load(y + (r * k.width + s) * k.channels + c, n);
        const Vec value = rounded_to<T>(relu(affine(x, scale, shift)));
        const IntVec better = (value > best) | (value != value);
        best = better ? value : best;
        index = better ? IntVec{} + static_cast<int32_t>(3 * r + s) : index;
      }
    }
    store(k.out + at + c, best, n);
    store_index(k.index + at + c, index, n);
  });
}

template <typename T>
void affine_act_maxpool_kernel(const AffineActMaxpool<T>& k, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    for (int64_t q = 0; q < k.pooled_width; ++q)
      pool_pixel(k, row / k.pooled_height, row % k.pooled_height, q);
  }
}

// One pooled pixel: its gradient, and the place in its window that the gradient goes to.
struct Pooled {
  Vec gradient;
  IntVec index;

  Vec at(int32_t place) const { return index == place ? gradient : Vec{}; }
};

// One input row, which kRows rows of windows hold: an even one is in the middle (r = 1) of one, an odd one
// at the end (r = 2) of one and at the start (r = 0) of the next. So with columns. Each pooled pixel is
// loaded once a row, for the three columns it reaches.
template <int kRows, typename T>
FUSEDRES_INLINE void unpool_row(const AffineActMaxpoolBwd<T> k, int64_t image_row, double* partial) {
  const int64_t image = image_row / k.height, h = image_row % k.height, channels = k.channels;
  const int64_t pooled_at = (image * k.pooled_height + h / 2) * k.pooled_width * channels;
  const int32_t first_r = h % 2 == 0 ? 1 : 2;
  for_channels(channels, [&](int64_t c, int n) __attribute__((always_inline)) {
    const Vec scale = load(k.s + c, n), shift = load(k.t + c, n), mean = load(k.mean + c, n);
    DoubleVec sum{}, dot{};
    Pooled windows[kRows];
    const auto load_windows = [&](int64_t q) __attribute__((always_inline)) {
      for (int i = 0; i < kRows; ++i) {
        const int64_t at = pooled_at + (i * k.pooled_width + q) * channels + c;
        windows[i] = {load(k.dout + at, n), load_index(k.index + at, n)};
      }
    };
    const auto gathered = [&](int32_t s) __attribute__((always_inline)) {
      Vec dz = windows[0].at(3 * first_r + s);
      if constexpr (kRows == 2) dz += windows[1].at(s);
      return dz;
    };
    load_windows(0);
    for (int64_t q = 0; q < k.pooled_width; ++q) {
      Vec pair_sum{}, pair_dot{};
      const auto write = [&](int64_t w, Vec dz) __attribute__((always_inline)) {
        const int64_t element = (image_row * k.width + w) * channels + c;
        const Vec y = load(k.y + element, n);
        dz = rounded_to<T>(where_rounds_positive<T>(affine(y, scale, shift), dz));
        store(k.dz + element, dz, n, k.past_caches);
        pair_sum += dz;
        pair_dot += dz * (y - mean);
      };
      write(2 * q, gathered(1));
      if (2 * q + 1 < k.width) {
        Vec dz = gathered(2);
        if (q + 1 < k.pooled_width) {
          load_windows(q + 1);
          dz += gathered(0);
        }
        write(2 * q + 1, dz);
      }
      sum += __builtin_convertvector(pair_sum, DoubleVec);
      dot += __builtin_convertvector(pair_dot, DoubleVec);
    }
    add_to(partial + c, sum, n);
    add_to(partial + channels + c, dot, n);
  });
}

template <typename T>
void affine_act_maxpool_bwd_kernel(const AffineActMaxpoolBwd<T>& k, int64_t begin_chunk, int64_t end_chunk) {
  for (int64_t chunk = begin_chunk; chunk < end_chunk; ++chunk) {
    double* partial = k.partial + chunk * 3 * k.channels;
    std::fill(partial, partial + 3 * k.channels, 0.0);
    const int64_t begin = chunk * k.chunk_rows, end = std::min(begin + k.chunk_rows, k.image_rows);
    for (int64_t row = begin; row < end; ++row) {
      const int64_t h = row % k.height;
      const bool two = h % 2 != 0 && h / 2 + 1 < k.pooled_height;
      two ? unpool_row<2>(k, row, partial) : unpool_row<1>(k, row, partial);
    }
  }
  finish_streaming();
}

}  // namespace fusedres::FUSEDRES_ISA
