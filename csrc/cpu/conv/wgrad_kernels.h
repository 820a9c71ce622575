// The tile of a weight gradient, its operands' copies and Winograd's transforms, in vectors of any width.
// Include only from wgrad_<isa>.cpp.
//
// The tile's sums are up to 14 filters by two vectors of channels with AVX-512, which has 32 registers, and 6
// by two with AVX2, which has 16. A panel of 32 channels is then passed over twice.
#pragma once

#include <algorithm>

#include "cpu/conv/multiply_add.h"
#include "cpu/conv/wgrad.h"

namespace fusedres::FUSEDRES_ISA {

using conv::Activation;
using conv::kPanel;
using conv::WgradTile;

#if defined(__AVX512F__)
constexpr int kFewestRows = 8, kTileRows = conv::kWgradRows;
constexpr int kUnrolled = 1;  // pixels
constexpr int64_t kChunk = 256, kCopiedBytes = 1 << 20;
#else
constexpr int kFewestRows = 6, kTileRows = 6;
constexpr int kUnrolled = 4;
constexpr int64_t kChunk = 128, kCopiedBytes = 256 << 10;  // a panel in half of 32 KB
#endif

constexpr int64_t kPass = 2 * kLanes;  // channels

// Pixels whose products are summed in one chain. A chain of 196 was seen at twice the error of oneDNN's sums,
// which go in blocks; 28 loads, additions and stores are 4% beside 128 x 14 cycles.
constexpr int64_t kChain = 128;

// An instruction of its own: folded into the two FMAs it would be loaded twice, 30 loads beside 28 FMAs.
FUSEDRES_INLINE Vec broadcast(const float* from) {
  Vec v;
#if defined(__AVX512F__)
  asm("vbroadcastss %1, %0" : "=v"(v) : "m"(*from));
#else
  asm("vbroadcastss %1, %0" : "=x"(v) : "m"(*from));
#endif
  return v;
}

template <int kRows>
FUSEDRES_INLINE void multiply_pixel(Vec (&sums)[kRows][2], const float* a, const float* b) {
  const Vec b0 = load(b, kLanes), b1 = load(b + kLanes, kLanes);
#pragma GCC unroll 14
  for (int row = 0; row < kRows; ++row) {
    const Vec v = broadcast(a + row);
    sums[row][0] = multiply_add(v, b0, sums[row][0]);
    sums[row][1] = multiply_add(v, b1, sums[row][1]);
  }
}

template <int kRows>
FUSEDRES_INLINE void move_to_total(Vec (&sums)[kRows][2], float* total, bool add) {
#pragma GCC unroll 14
  for (int row = 0; row < kRows; ++row)
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) {
      float* to = total + row * kPanel + v * kLanes;
      store(to, add ? sums[row][v] + load(to, kLanes) : sums[row][v], kLanes);
      sums[row][v] = Vec{};
    }
}

// The tile's channels [first, first + kPass).
template <int kRows>
FUSEDRES_INLINE void tile_pass(const WgradTile& work, int64_t first) {
  Vec sums[kRows][2];
#pragma GCC unroll 14
  for (int row = 0; row < kRows; ++row) sums[row][0] = sums[row][1] = Vec{};
  const float* a = work.a;
  const int64_t step = work.b_step;
  int64_t room = kChain;
  bool add = work.add;
  for (int64_t image = 0; image < work.images; ++image)
    for (int64_t line = 0; line < work.lines; ++line) {
      const float* b = work.b + first + image * work.b_image + line * work.b_line;
      for (int64_t left = work.length; left > 0;) {
        const int64_t now = std::min(left, room);
        int64_t pixel = now;
        if constexpr (kUnrolled > 1)
          for (; pixel >= kUnrolled; pixel -= kUnrolled) {
#pragma GCC unroll 4
            for (int i = 0; i < kUnrolled; ++i) {
              multiply_pixel<kRows>(sums, a + i * kRows, b);
              b += step;
            }
            a += kUnrolled * kRows;
          }
        for (; pixel > 0; --pixel) {
          multiply_pixel<kRows>(sums, a, b);
          a += kRows;
          b += step;
        }
        left -= now;
        room -= now;
        if (room > 0) continue;
        move_to_total<kRows>(sums, work.sums + first, add);
        add = true;
        room = kChain;
      }
    }
  if (room < kChain) move_to_total<kRows>(sums, work.sums + first, add);
}

template <int kRows>
__attribute__((noinline)) void tile(const WgradTile& work) {
  for (int64_t first = 0; first < kPanel; first += kPass) tile_pass<kRows>(work, first);
}

template <int kRows = kTileRows>
auto tile_of(int64_t rows) -> void (*)(const WgradTile&) {
  if constexpr (kRows > 1)
    if (rows < kRows) return tile_of<kRows - 1>(rows);
  return tile<kRows>;
}

// The first `lanes` values; the others are 0. AVX-512 masks whole vectors too, AVX2 asks first.
FUSEDRES_INLINE Vec load_first(const float* from, int64_t lanes) {
#if defined(__AVX512F__)
  return load_some(from, static_cast<int>(lanes));
#else
  return load(from, static_cast<int>(lanes));
#endif
}

template <bool kActivate>
void pack_pixels(
    const float* x, int64_t step, int64_t pixels, int64_t channels, Activation activation, float* to,
    int64_t panel) {
  for (int64_t pixel = 0; pixel < pixels; ++pixel)
    for (int64_t c = 0; c < channels; c += kPanel) {
      float* out = to + c / kPanel * panel + pixel * kPanel;
#pragma GCC unroll 4
      for (int64_t v = c; v < c + kPanel; v += kLanes, out += kLanes) {
        const int64_t present = std::clamp<int64_t>(channels - v, 0, kLanes);
        Vec value = load_first(x + pixel * step + v, present);
        // Rounded after the product and after the sum, as everywhere else (common/element.h). A NaN stays
        // one.
        if constexpr (kActivate)
          value = at_least(
              Vec{}, affine(
                         value, load_first(activation.scale + v, present),
                         load_first(activation.shift + v, present)));
        store(out, value, kLanes);
      }
    }
}

inline void pack_panels(
    const float* x, int64_t step, int64_t pixels, int64_t channels, Activation activation, float* to,
    int64_t panel) {
  if (x == nullptr) {
    for (int64_t c = 0; c < channels; c += kPanel)
      std::fill_n(to + c / kPanel * panel, pixels * kPanel, 0.0f);
  } else if (activation.scale != nullptr) {
    pack_pixels<true>(x, step, pixels, channels, activation, to, panel);
  } else {
    pack_pixels<false>(x, step, pixels, channels, activation, to, panel);
  }
}

// A tile's filters of a pixel, of which `left` are there. The lanes beyond them are 0 or belong to the next
// tile; `store_rows` puts those where the next pixel's go, or in the gap behind the last: AVX2's masked
// stores are slow.
FUSEDRES_INLINE Vec load_rows(const float* from, int64_t rows, int64_t left) {
#if defined(__AVX512F__)
  return load_first(from, std::min(rows, left));
#else
  return load_first(from, std::min<int64_t>(kLanes, left));
#endif
}

FUSEDRES_INLINE void store_rows(float* to, Vec value, int64_t rows) {
#if defined(__AVX512F__)
  store_some(to, value, static_cast<int>(rows));
#else
  store(to, value, kLanes);
#endif
}

inline void pack_tiles(
    const float* dy, int64_t step, int64_t pixels, int64_t channels, int64_t rows, float* to, int64_t tile) {
  for (int64_t pixel = 0; pixel < pixels; ++pixel) {
    const float* from = dy + pixel * step;
    float* out = to + pixel * rows;
    for (int64_t k = 0; k < channels; k += rows, out += tile)
      store_rows(out, load_rows(from + k, rows, channels - k), rows);
  }
}

// A applied to two values: A' takes four to two in the forward.
FUSEDRES_INLINE void gradient_column(const Vec (&d)[2], Vec (&out)[4]) {
  out[0] = d[0];
  out[1] = d[0] + d[1];
  out[2] = d[0] - d[1];
  out[3] = Vec{} - d[1];
}

inline void transform_gradient(
    const float* const patch[4], int64_t channels, int64_t rows, float* to, int64_t tile, int64_t point) {
  for (int64_t k = 0; k < channels; k += rows, to += tile) {
    Vec half[2][4];  // half[j] = A of column j
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
      Vec column[2];
#pragma GCC unroll 2
      for (int i = 0; i < 2; ++i)
        column[i] = patch[i * 2 + j] == nullptr ? Vec{} : load_rows(patch[i * 2 + j] + k, rows, channels - k);
      gradient_column(column, half[j]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const Vec row[2] = {half[0][i], half[1][i]};
      Vec whole[4];
      gradient_column(row, whole);
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) store_rows(to + (i * 4 + j) * point, whole[j], rows);
    }
  }
}

// G' applied to four values.
FUSEDRES_INLINE void filter_column(const Vec (&m)[4], Vec (&out)[3]) {
  const Vec half = splat(0.5f);
  const Vec even = half * (m[1] + m[2]);
  out[0] = m[0] + even;
  out[1] = half * (m[1] - m[2]);
  out[2] = even + m[3];
}

inline void transform_filter(const float* m, int64_t point, float* taps, int64_t tap) {
  for (int64_t c = 0; c < kPanel; c += kLanes) {
    Vec half[4][3];  // half[j] = G' of column j
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      Vec column[4];
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) column[i] = load(m + (i * 4 + j) * point + c, kLanes);
      filter_column(column, half[j]);
    }
#pragma GCC unroll 3
    for (int i = 0; i < 3; ++i) {
      const Vec row[4] = {half[0][i], half[1][i], half[2][i], half[3][i]};
      Vec whole[3];
      filter_column(row, whole);
#pragma GCC unroll 3
      for (int j = 0; j < 3; ++j) store(taps + (i * 3 + j) * tap + c, whole[j], kLanes);
    }
  }
}

constexpr conv::WgradKernels wgrad_table(const conv::WinogradTransforms& transforms) {
  return {kFewestRows, kTileRows,   kChunk,     kCopiedBytes,       &transforms,
          tile_of<>,   pack_panels, pack_tiles, transform_gradient, transform_filter};
}

}  // namespace fusedres::FUSEDRES_ISA
