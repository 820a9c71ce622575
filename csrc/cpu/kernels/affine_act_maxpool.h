// The stem: maxpool(relu(y * s + t)) over 3 x 3 windows, stride 2, padding 1, and its backward.
#pragma once

#include <algorithm>
#include <limits>

#include "cpu/kernels/params.h"
#include "cpu/kernels/row_sums.h"

namespace fusedres::FUSEDRES_ISA {

typedef uint8_t ByteVec __attribute__((vector_size(kLanes)));

FUSEDRES_INLINE IntVec load_index(const uint8_t* p, int n) {
  return __builtin_convertvector(load_packed<ByteVec>(p, n), IntVec);
}

FUSEDRES_INLINE void store_index(uint8_t* p, IntVec index, int n) {
  store_packed(p, __builtin_convertvector(index, ByteVec), n);
}

// One pooled pixel: the first maximum in row-major order, NaN above everything, as torch.
template <typename T>
FUSEDRES_INLINE void pool_pixel(const AffineActMaxpool<T>& k, int64_t image, int64_t p, int64_t q) {
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
    for (int64_t q = 0; q < k.pooled_width; ++q) pool_pixel(k, row / k.pooled_height, row % k.pooled_height, q);
  }
}

// The windows that hold one input coordinate: 2p - 1 + r = at, r in 0..2. An even one has one, an odd one two.
struct Windows {
  int64_t first, count, place;  // the first window, how many, the coordinate's place r in the first

  Windows(int64_t at, int64_t pooled) : first(at / 2), count(1), place(at % 2 == 0 ? 1 : 2) {
    if (at % 2 != 0 && first + 1 < pooled) count = 2;
  }
  int64_t place_in(int64_t i) const { return place - 2 * i; }
};

template <typename T>
FUSEDRES_INLINE void unpool_group(
    const AffineActMaxpoolBwd<T>& k, int64_t image_row, int64_t w_begin, int64_t count, double* partial) {
  const int64_t image = image_row / k.height;
  const Windows rows(image_row % k.height, k.pooled_height);
  for_channels(k.channels, [&](int64_t c, int n) __attribute__((always_inline)) {
    const Vec scale = load(k.s + c, n), shift = load(k.t + c, n), mean = load(k.mean + c, n);
    Vec sum{}, dot{};
    for (int64_t w = w_begin; w < w_begin + count; ++w) {
      const Windows columns(w, k.pooled_width);
      Vec dz{};
      for (int64_t i = 0; i < rows.count; ++i) {
        for (int64_t j = 0; j < columns.count; ++j) {
          const int64_t pooled = (image * k.pooled_height + rows.first + i) * k.pooled_width + columns.first + j;
          const int32_t place = static_cast<int32_t>(3 * rows.place_in(i) + columns.place_in(j));
          const IntVec chosen = load_index(k.index + pooled * k.channels + c, n) == place;
          dz += chosen ? load(k.dout + pooled * k.channels + c, n) : Vec{};
        }
      }
      const int64_t element = (image_row * k.width + w) * k.channels + c;
      const Vec y = load(k.y + element, n);
      dz = rounded_to<T>(where_rounds_positive<T>(affine(y, scale, shift), dz));
      store(k.dz + element, dz, n);
      sum += dz;
      dot += dz * (y - mean);
    }
    add_to(partial + c, sum, n);
    add_to(partial + k.channels + c, dot, n);
  });
}

template <typename T>
void affine_act_maxpool_bwd_kernel(const AffineActMaxpoolBwd<T>& k, int64_t begin_chunk, int64_t end_chunk) {
  for (int64_t chunk = begin_chunk; chunk < end_chunk; ++chunk) {
    double* partial = k.partial + chunk * 3 * k.channels;
    std::fill(partial, partial + 3 * k.channels, 0.0);
    const int64_t begin = chunk * k.chunk_rows, end = std::min(begin + k.chunk_rows, k.image_rows);
    for (int64_t row = begin; row < end; ++row) {
      for_groups(0, k.width, [&](int64_t w, int64_t count) __attribute__((always_inline)) {
        unpool_group(k, row, w, count, partial);
      });
    }
  }
}

}  // namespace fusedres::FUSEDRES_ISA
