// The register tile in vectors of any width, for AVX2 and for every CPU: up to 2 halves of 3 pixels by two
// vectors of filters, 12 of 16 registers. Include only from tile_<isa>.cpp.
//
// A panel is passed over 32 / (2 * kLanes) times: twice by AVX2 (6 x 16), four times by vectors of 4.
#pragma once

#include "cpu/conv/multiply_add.h"
#include "cpu/conv/shape.h"
#include "cpu/conv/tile.h"

namespace fusedres::FUSEDRES_ISA {

using conv::kPanel;
using conv::Tile;
using conv::TileCommon;
using conv::TileKernel;

constexpr int64_t kPass = 2 * kLanes;  // filters
constexpr int64_t kPasses = kPanel / kPass;
constexpr int kTileRows = 3;

template <typename T>
FUSEDRES_INLINE T read(const char* from) {
  T value;
  memcpy(&value, from, sizeof(value));
  return value;
}

// One input value a step.
struct Float32 {
  using Element = float;
  static constexpr int64_t kGroup = 1;

  template <int kRows>
  static FUSEDRES_INLINE void step(
      Vec (&sum)[kRows][2], const char* rows, int64_t row_step, const char* weights) {
    const Vec b0 = read<Vec>(weights), b1 = read<Vec>(weights + sizeof(Vec));
#pragma GCC unroll 3
    for (int row = 0; row < kRows; ++row) {
      const Vec a = splat(read<float>(rows + row * row_step));
      sum[row][0] = multiply_add(a, b0, sum[row][0]);
      sum[row][1] = multiply_add(a, b1, sum[row][1]);
    }
  }
};

// Two input values a step, widened in pairs: the first of a pair is its low half, moved up, the second its
// high half.
struct PairsBf16 {
  using Element = BFloat16;
  static constexpr int64_t kGroup = 2;

  static FUSEDRES_INLINE Vec first(UintVec pairs) { return bit_cast<Vec>(pairs << 16); }
  static FUSEDRES_INLINE Vec second(UintVec pairs) { return bit_cast<Vec>(pairs & 0xffff0000u); }

  template <int kRows>
  static FUSEDRES_INLINE void step(
      Vec (&sum)[kRows][2], const char* rows, int64_t row_step, const char* weights) {
    const UintVec b0 = read<UintVec>(weights), b1 = read<UintVec>(weights + sizeof(UintVec));
#pragma GCC unroll 3
    for (int row = 0; row < kRows; ++row) {
      const UintVec a = UintVec{} + read<uint32_t>(rows + row * row_step);
      sum[row][0] = multiply_add(first(a), first(b0), sum[row][0]);
      sum[row][1] = multiply_add(first(a), first(b1), sum[row][1]);
      sum[row][0] = multiply_add(second(a), second(b0), sum[row][0]);
      sum[row][1] = multiply_add(second(a), second(b1), sum[row][1]);
    }
  }
};

// relu?(sum * scale + shift + residual) of filters [first, first + kLanes) of a panel, of one pixel.
template <typename T>
FUSEDRES_INLINE void store_vector(
    Vec sum, const TileCommon& common, const Tile& tile, int half, int64_t row, int64_t first) {
  const int64_t left = tile.channels - first;
  if (left <= 0) return;
  const int lanes = left < kLanes ? static_cast<int>(left) : kLanes;
  Vec value = multiply_add(sum, load(tile.scale + first, kLanes), load(tile.shift + first, kLanes));
  if (tile.residual[half] != nullptr) {
    const char* residual = tile.residual[half] + row * common.residual_step;
    value += load(reinterpret_cast<const T*>(residual) + first, lanes);
  }
  const Vec floor = splat(common.floor);
  value = value < floor ? floor : value;  // a NaN passes through, as it does through torch's ReLU
  store(reinterpret_cast<T*>(tile.out[half] + row * common.out_step) + first, value, lanes);
}

// Filters [first, first + kPass) of the panel; `ahead` goes on by `ahead_step` bytes a step.
template <class Arithmetic, int kRows, int kHalves>
FUSEDRES_INLINE void vector_pass(
    const TileCommon& common, const Tile& tile, int64_t first, const char* ahead, int64_t ahead_step) {
  // As in register_tile.h: sums move to a total before they grow long.
  constexpr int64_t kChunk = 256;
  Vec sum[kHalves][kRows][2] = {}, total[kHalves][kRows][2] = {};
  const char* weights = tile.weights + first * 4;
  const int64_t steps = common.run / Arithmetic::kGroup, row_step = common.in_step;
  int64_t room = kChunk;
  for (int64_t tap = 0; tap < common.tap_count; ++tap) {
    const char* one = tile.in[0] + common.taps[tap];
    const char* other = kHalves == 2 ? tile.in[1] + common.taps[tap] : one;
    for (int64_t left = steps; left > 0;) {
      const int64_t now = left < room ? left : room;
      for (int64_t k = now; k > 0; --k) {
        Arithmetic::template step<kRows>(sum[0], one, row_step, weights);
        if constexpr (kHalves == 2) Arithmetic::template step<kRows>(sum[1], other, row_step, weights);
        __builtin_prefetch(ahead);
        weights += 4 * kPanel;
        ahead += ahead_step;
        one += 4;
        other += 4;
        // A step's rows are then reached from two pointers by scaled addresses. Left to itself the compiler
        // keeps differences of pointers: with AVX2 35 instructions a step, not 27.
        asm("" : "+r"(one), "+r"(other));
      }
      left -= now;
      room -= now;
      if (room > 0) continue;
      room = kChunk;
      for (int i = 0; i < 2 * kRows * kHalves; ++i) {
        Vec& of_chunk = sum[i / 2 / kRows][i / 2 % kRows][i % 2];
        total[i / 2 / kRows][i / 2 % kRows][i % 2] += of_chunk;
        of_chunk = Vec{};
      }
    }
  }
#pragma GCC unroll 12
  for (int i = 0; i < 2 * kRows * kHalves; ++i) {
    const int row = i / 2 % kRows, half = i / 2 / kRows;
    if (row < tile.skip[half]) continue;
    store_vector<typename Arithmetic::Element>(
        total[half][row][i % 2] + sum[half][row][i % 2], common, tile, half, row, first + i % 2 * kLanes);
  }
}

// Where a tile will write, and what it will add, come to L1 while it computes.
template <typename T>
FUSEDRES_INLINE void prefetch_outputs(const TileCommon& common, const Tile& tile, int half) {
  for (int64_t row = 0; row < common.rows; ++row)
    for (int64_t line = 0; line < int64_t{sizeof(T)} * kPanel; line += 64) {
      __builtin_prefetch(tile.out[half] + row * common.out_step + line);
      if (tile.residual[half] != nullptr)
        __builtin_prefetch(tile.residual[half] + row * common.residual_step + line);
    }
}

template <class Arithmetic, int kRows, int kHalves>
void vector_tile(const TileCommon& common, const Tile& tile) {
  for (int half = 0; half < kHalves; ++half)
    prefetch_outputs<typename Arithmetic::Element>(common, tile, half);
  const int64_t steps = common.run / Arithmetic::kGroup * common.tap_count;
  const int64_t ahead_step = (tile.ahead_bytes + kPasses * steps - 1) / (kPasses * steps);
  for (int64_t pass = 0; pass < kPasses && pass * kPass < tile.channels; ++pass)
    vector_pass<Arithmetic, kRows, kHalves>(
        common, tile, pass * kPass, tile.ahead + pass * steps * ahead_step, ahead_step);
}

template <class Arithmetic>
TileKernel vector_tile_of(int64_t rows, int64_t halves) {
  static constexpr TileKernel kernels[2][kTileRows] = {
      {vector_tile<Arithmetic, 1, 1>, vector_tile<Arithmetic, 2, 1>, vector_tile<Arithmetic, 3, 1>},
      {vector_tile<Arithmetic, 1, 2>, vector_tile<Arithmetic, 2, 2>, vector_tile<Arithmetic, 3, 2>}};
  return kernels[halves - 1][rows - 1];
}

}  // namespace fusedres::FUSEDRES_ISA
