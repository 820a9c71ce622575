// The register tile for AVX-512, shared by fp32 (FMA) and bf16 (vdpbf16ps). Include only from *_avx512*.cpp.
#pragma once

// GCC bug 105593: its own intrinsics "may be used uninitialized".
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>

#include "cpu/conv/tile.h"

namespace fusedres::conv {

// Pixels of a packed line: 14 and two that nobody reads.
constexpr int64_t kPackedRows = 16;

// Broadcast the 32-bit value (an fp32, or two bf16) at base + kRow * step. Seven rows are reached from one
// base with the scaled addresses of x86; left to itself the compiler keeps fourteen pointers and spills them.
template <int kRow>
inline __attribute__((always_inline)) __m512
broadcast_row(const char* base, int64_t step, int64_t step3, int64_t step5) {
  using Memory = const char(*)[];  // tells the compiler that the instruction reads memory, any of it
  __m512 v;
  if constexpr (kRow == 0) {
    asm("vbroadcastss (%1), %0" : "=v"(v) : "r"(base), "m"(*(Memory)base));
  } else if constexpr (kRow == 1) {
    asm("vbroadcastss (%1,%2), %0" : "=v"(v) : "r"(base), "r"(step), "m"(*(Memory)base));
  } else if constexpr (kRow == 2) {
    asm("vbroadcastss (%1,%2,2), %0" : "=v"(v) : "r"(base), "r"(step), "m"(*(Memory)base));
  } else if constexpr (kRow == 3) {
    asm("vbroadcastss (%1,%2), %0" : "=v"(v) : "r"(base), "r"(step3), "m"(*(Memory)base));
  } else if constexpr (kRow == 4) {
    asm("vbroadcastss (%1,%2,4), %0" : "=v"(v) : "r"(base), "r"(step), "m"(*(Memory)base));
  } else if constexpr (kRow == 5) {
    asm("vbroadcastss (%1,%2), %0" : "=v"(v) : "r"(base), "r"(step5), "m"(*(Memory)base));
  } else {
    asm("vbroadcastss (%1,%2,2), %0" : "=v"(v) : "r"(base), "r"(step3), "m"(*(Memory)base));
  }
  return v;
}

// Multiply-accumulate row kRow and those after it, of one half, with the two vectors of filters.
template <class Arithmetic, int kRow, int kRows>
inline __attribute__((always_inline)) void accumulate_rows(
    __m512 (&sum)[kRows][2], const char* base, int64_t step, int64_t step3, int64_t step5, __m512 b0,
    __m512 b1) {
  if constexpr (kRow < kRows) {
    const __m512 a = broadcast_row<kRow>(base, step, step3, step5);
    sum[kRow][0] = Arithmetic::multiply_add(a, b0, sum[kRow][0]);
    sum[kRow][1] = Arithmetic::multiply_add(a, b1, sum[kRow][1]);
    accumulate_rows<Arithmetic, kRow + 1, kRows>(sum, base, step, step3, step5, b0, b1);
  }
}

// The same from packed inputs. The second half's values are read where they are used, once for each vector
// (left to itself the compiler loads them beforehand): 37 instructions a step instead of 44, which counts
// where the core's other hyperthread works. Reading the first half's twice too would be more loads than L1
// serves.
template <bool kReadTwice, int kRow, int kRows>
inline __attribute__((always_inline)) void accumulate_packed(
    __m512 (&sum)[kRows][2], const float* values, __m512 b0, __m512 b1) {
  if constexpr (kRow < kRows) {
    if constexpr (kReadTwice) {
      asm("vfmadd231ps %1%{1to16%}, %2, %0" : "+v"(sum[kRow][0]) : "m"(values[kRow]), "v"(b0));
      asm("vfmadd231ps %1%{1to16%}, %2, %0" : "+v"(sum[kRow][1]) : "m"(values[kRow]), "v"(b1));
    } else {
      __m512 a;
      asm("vbroadcastss %1, %0" : "=v"(a) : "m"(values[kRow]));
      sum[kRow][0] = _mm512_fmadd_ps(a, b0, sum[kRow][0]);
      sum[kRow][1] = _mm512_fmadd_ps(a, b1, sum[kRow][1]);
    }
    accumulate_packed<kReadTwice, kRow + 1, kRows>(sum, values, b0, b1);
  }
}

template <class Arithmetic, int kRows>
inline __attribute__((always_inline)) void store_half(
    __m512 (&sum)[kRows][2], const TileCommon& common, const Tile& tile, int half) {
  const __m512 floor = _mm512_set1_ps(common.floor);
  const __m512 scale[2] = {_mm512_loadu_ps(tile.scale), _mm512_loadu_ps(tile.scale + 16)};
  const __m512 shift[2] = {_mm512_loadu_ps(tile.shift), _mm512_loadu_ps(tile.shift + 16)};
  const uint32_t lanes = static_cast<uint32_t>((uint64_t{1} << tile.channels) - 1);
  const __mmask16 mask[2] = {static_cast<__mmask16>(lanes), static_cast<__mmask16>(lanes >> 16)};
#pragma GCC unroll 7
  for (int row = 0; row < kRows; ++row) {
    if (row < tile.skip[half]) continue;
    char* out = tile.out[half] + row * common.out_step;
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) {
      __m512 value = _mm512_fmadd_ps(sum[row][v], scale[v], shift[v]);
      if (tile.residual[half] != nullptr) {
        const char* residual = tile.residual[half] + row * common.residual_step;
        value = _mm512_add_ps(value, Arithmetic::load(residual, v, mask[v]));
      }
      // In this order of operands a NaN passes through, as it does through torch's ReLU.
      value = _mm512_max_ps(floor, value);
      Arithmetic::store(out, v, mask[v], value);
    }
  }
}

// Where a tile will write, and what it will add, comes to L1 while it computes (256 -> 1024 at 14 x 14 with
// residual: 63 to 82 GFLOP/s).
template <int kRows>
inline __attribute__((always_inline)) void prefetch_outputs(
    const TileCommon& common, const Tile& tile, int half) {
  for (int row = 0; row < kRows; ++row) {
    const char* out = tile.out[half] + row * common.out_step;
    _mm_prefetch(out, _MM_HINT_T0);
    _mm_prefetch(out + 64, _MM_HINT_T0);
    if (tile.residual[half] == nullptr) continue;
    const char* residual = tile.residual[half] + row * common.residual_step;
    _mm_prefetch(residual, _MM_HINT_T0);
    _mm_prefetch(residual + 64, _MM_HINT_T0);
  }
}

// The running total of long sums is kept in memory (L1).
template <int kRows>
inline __attribute__((always_inline)) void add_total(__m512 (&sum)[kRows][2], float* total) {
#pragma GCC unroll 14
  for (int i = 0; i < 2 * kRows; ++i)
    sum[i / 2][i % 2] = _mm512_add_ps(sum[i / 2][i % 2], _mm512_load_ps(total + 16 * i));
}

template <int kRows>
inline __attribute__((always_inline)) void move_to_total(__m512 (&sum)[kRows][2], float* total) {
#pragma GCC unroll 14
  for (int i = 0; i < 2 * kRows; ++i) {
    _mm512_store_ps(total + 16 * i, _mm512_add_ps(sum[i / 2][i % 2], _mm512_load_ps(total + 16 * i)));
    sum[i / 2][i % 2] = _mm512_setzero_ps();
  }
}

// With kPacked the inputs lie as they were packed, at tile.in[0].
template <class Arithmetic, int kRows, int kHalves, bool kPacked>
__attribute__((noinline)) void register_tile(const TileCommon& common, const Tile& tile) {
  static_assert(kRows >= 1 && kRows <= 7 && (kHalves == 1 || kHalves == 2));
  // One chain of additions over 1024 products has twice the error of oneDNN's blocks, so sums move to a total
  // every kChunk steps: 28 loads, adds and stores beside 256 x 28 FMAs.
  constexpr int64_t kChunk = 256;
  alignas(64) float totals[2][kRows * 32];
  __m512 first[kRows][2], second[kRows][2];
#pragma GCC unroll 7
  for (int row = 0; row < kRows; ++row) {
    first[row][0] = first[row][1] = _mm512_setzero_ps();
    second[row][0] = second[row][1] = _mm512_setzero_ps();
  }
  const int64_t steps = common.run / Arithmetic::kGroup;
  const bool long_sum = steps * common.tap_count >= kChunk;
  if (long_sum)
    for (int i = 0; i < kRows * 32; ++i) totals[0][i] = totals[1][i] = 0.0f;

  const int64_t step = common.in_step, step3 = 3 * step, step5 = 5 * step;
  const int64_t between = kHalves == 2 && !kPacked ? tile.in[1] - tile.in[0] : 0;
  const char* weights = tile.weights;
  const char* ahead = tile.ahead;
  const int64_t ahead_step = (tile.ahead_bytes + steps * common.tap_count - 1) / (steps * common.tap_count);
  prefetch_outputs<kRows>(common, tile, 0);
  if constexpr (kHalves == 2) prefetch_outputs<kRows>(common, tile, 1);
  int64_t room = kChunk;
  for (int64_t tap = 0; tap < common.tap_count; ++tap) {
    const char* a = tile.in[0] + common.taps[tap];
    for (int64_t left = steps; left > 0;) {
      const int64_t now = left < room ? left : room;
      for (int64_t k = now; k > 0; --k) {
        const __m512 b0 = _mm512_loadu_ps(weights);
        const __m512 b1 = _mm512_loadu_ps(weights + 64);
        _mm_prefetch(ahead, _MM_HINT_T1);
        if constexpr (kPacked) {
          const float* values = reinterpret_cast<const float*>(a);
          accumulate_packed<false, 0, kRows>(first, values, b0, b1);
          if constexpr (kHalves == 2) accumulate_packed<true, 0, kRows>(second, values + kRows, b0, b1);
          a += 4 * kPackedRows;
        } else {
          accumulate_rows<Arithmetic, 0, kRows>(first, a, step, step3, step5, b0, b1);
          if constexpr (kHalves == 2)
            accumulate_rows<Arithmetic, 0, kRows>(second, a + between, step, step3, step5, b0, b1);
          a += 4;
        }
        weights += 128;
        ahead += ahead_step;
      }
      left -= now;
      room -= now;
      if (room == 0) {
        move_to_total<kRows>(first, totals[0]);
        if constexpr (kHalves == 2) move_to_total<kRows>(second, totals[1]);
        room = kChunk;
      }
    }
  }
  if (long_sum) {
    add_total<kRows>(first, totals[0]);
    if constexpr (kHalves == 2) add_total<kRows>(second, totals[1]);
  }
  store_half<Arithmetic, kRows>(first, common, tile, 0);
  if constexpr (kHalves == 2) store_half<Arithmetic, kRows>(second, common, tile, 1);
}

template <class Arithmetic, int kHalves, bool kPacked = false>
TileKernel register_tile_of(int64_t rows) {
  static constexpr TileKernel kernels[] = {
      register_tile<Arithmetic, 1, kHalves, kPacked>, register_tile<Arithmetic, 2, kHalves, kPacked>,
      register_tile<Arithmetic, 3, kHalves, kPacked>, register_tile<Arithmetic, 4, kHalves, kPacked>,
      register_tile<Arithmetic, 5, kHalves, kPacked>, register_tile<Arithmetic, 6, kHalves, kPacked>,
      register_tile<Arithmetic, 7, kHalves, kPacked>};
  return kernels[rows - 1];
}

}  // namespace fusedres::conv
