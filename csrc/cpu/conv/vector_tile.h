// The register tile in vectors of any width, for AVX2 and for every CPU: up to six pixels by two vectors of
// filters, 12 of 16 registers. Include only from tile_<isa>.cpp.
//
// A panel is passed over 32 / (2 * kLanes) times: twice by AVX2 (6 x 16), four times by vectors of 4. The
// weights of a pass follow those of the one before.
#pragma once

#include <algorithm>
#include <type_traits>

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
constexpr int kTilePixels = 6;
constexpr int kUnrolled = 4;  // steps

template <typename T>
FUSEDRES_INLINE T read(const char* from) {
  T value;
  memcpy(&value, from, sizeof(value));
  return value;
}

// sum += a * b, in place: left to itself the compiler puts sums where a was, and spills.
FUSEDRES_INLINE void accumulate(Vec& sum, Vec a, Vec b) {
#if defined(__FMA__) && !defined(__AVX512F__)
  asm("vfmadd231ps %2, %1, %0" : "+x"(sum) : "x"(a), "x"(b));
#else
  sum = multiply_add(a, b, sum);
#endif
}

// Where the 4 bytes lie that a pixel has for a step. Six pointers and one distance: left to itself the
// compiler moves all six on.
template <int kPixels>
struct Input {
  const char* pixels[kPixels];
  int64_t distance;

  FUSEDRES_INLINE Input(const Tile& tile, int64_t tap) : distance(tap) {
#pragma GCC unroll 6
    for (int pixel = 0; pixel < kPixels; ++pixel) pixels[pixel] = tile.in[pixel];
  }
  FUSEDRES_INLINE const char* at(int pixel, int ahead) const { return pixels[pixel] + distance + 4 * ahead; }
  FUSEDRES_INLINE void go_on(int64_t steps) {
    distance += 4 * steps;
    asm("" : "+r"(distance));
  }
};

// One input value a step.
struct Float32 {
  using Element = float;
  static constexpr int64_t kGroup = 1;

  template <int kPixels>
  static FUSEDRES_INLINE void step(
      Vec (&sum)[kPixels][2], const Input<kPixels>& input, int ahead, const char* weights) {
    const Vec b0 = read<Vec>(weights), b1 = read<Vec>(weights + sizeof(Vec));
#pragma GCC unroll 6
    for (int pixel = 0; pixel < kPixels; ++pixel) {
      const Vec a = splat(read<float>(input.at(pixel, ahead)));
      accumulate(sum[pixel][0], a, b0);
      accumulate(sum[pixel][1], a, b1);
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

  template <int kPixels>
  static FUSEDRES_INLINE void step(
      Vec (&sum)[kPixels][2], const Input<kPixels>& input, int ahead, const char* weights) {
    const UintVec b0 = read<UintVec>(weights), b1 = read<UintVec>(weights + sizeof(UintVec));
#pragma GCC unroll 6
    for (int pixel = 0; pixel < kPixels; ++pixel) {
      const UintVec a = UintVec{} + read<uint32_t>(input.at(pixel, ahead));
      accumulate(sum[pixel][0], first(a), first(b0));
      accumulate(sum[pixel][1], first(a), first(b1));
      accumulate(sum[pixel][0], second(a), second(b0));
      accumulate(sum[pixel][1], second(a), second(b1));
    }
  }
};

// Whether tiles that store T round as TileCommon::rounds asks. AVX-512's fp32 tiles (register_tile.h) do not,
// so its groups' need not: a block has both.
template <typename T>
constexpr bool kRounds = std::is_same_v<T, float> && kLanes < 16;

// What a pixel's kLanes outputs need but for where they lie. They are rounded to Values, then stored as T.
template <typename T, typename Values, bool kResidual>
struct OutputWriter {
  Vec floor, scale, shift;

  // relu?(sum * scale + shift + residual) of the first `lanes` filters, the residual's `at` bytes on.
  FUSEDRES_INLINE void write(Vec sum, const char* residual, int64_t at, char* out, int lanes) const {
    Vec value = multiply_add(sum, scale, shift);
    if constexpr (kResidual) value += load(reinterpret_cast<const T*>(residual + at), lanes);
    store(reinterpret_cast<T*>(out), rounded_to<Values>(at_least(floor, value)), lanes);
  }
};

// write(writer, lanes) for filters [first, first + kLanes) of the panel, if any are there.
template <typename T, class Write>
FUSEDRES_INLINE void with_writer(
    const TileCommon& common, const Tile& tile, int64_t first, const Write& write) {
  const int64_t left = tile.channels - first;
  if (left <= 0) return;
  // Read once: after each store the compiler would read it again.
  const Vec floor = splat(common.floor), scale = load(tile.scale + first, kLanes),
            shift = load(tile.shift + first, kLanes);
  const auto write_values = [&](auto values) __attribute__((always_inline)) {
    using Values = decltype(values);
    const auto write_lanes = [&](int lanes) __attribute__((always_inline)) {
      tile.residual[0] != nullptr ? write(OutputWriter<T, Values, true>{floor, scale, shift}, lanes)
                                  : write(OutputWriter<T, Values, false>{floor, scale, shift}, lanes);
    };
    left >= kLanes ? write_lanes(kLanes) : write_lanes(static_cast<int>(left));
  };
  if constexpr (kRounds<T>) {
    if (common.rounds) return write_values(BFloat16{});
  }
  write_values(float{});
}

// The running totals of long sums are kept in memory (L1): total[i] += the i-th sum, which is 0 again.
template <int kPixels>
FUSEDRES_INLINE void move_to_total(Vec (&sum)[kPixels][2], Vec* total, bool fresh) {
#pragma GCC unroll 12
  for (int i = 0; i < 2 * kPixels; ++i) {
    total[i] = fresh ? sum[i / 2][i % 2] : total[i] + sum[i / 2][i % 2];
    sum[i / 2][i % 2] = Vec{};
  }
}

template <int kPixels>
FUSEDRES_INLINE void add_total(Vec (&sum)[kPixels][2], const Vec* total) {
#pragma GCC unroll 12
  for (int i = 0; i < 2 * kPixels; ++i) sum[i / 2][i % 2] += total[i];
}

// Filters [first, first + kPass) of the panel, whose weights are those; `ahead` goes on by `ahead_step` bytes
// every kUnrolled steps.
template <class Arithmetic, int kPixels>
FUSEDRES_INLINE void vector_pass(
    const TileCommon& common, const Tile& tile, int64_t first, const char* weights, const char* ahead,
    int64_t ahead_step) {
  // As in register_tile.h: sums move to a total before they grow long.
  constexpr int64_t kChunk = 256;
  constexpr int64_t kStepBytes = 4 * kPass;
  using T = typename Arithmetic::Element;
  Vec sum[kPixels][2] = {}, total[2 * kPixels];
  bool moved = false;
  const int64_t steps = common.run / Arithmetic::kGroup;
  int64_t room = kChunk;
  for (int64_t tap = 0; tap < common.tap_count; ++tap) {
    Input<kPixels> input(tile, common.taps[tap]);
    for (int64_t left = steps; left > 0;) {
      const int64_t now = left < room ? left : room;
      int64_t k = now;
      for (; k >= kUnrolled; k -= kUnrolled) {
#pragma GCC unroll 4
        for (int i = 0; i < kUnrolled; ++i)
          Arithmetic::template step<kPixels>(sum, input, i, weights + i * kStepBytes);
        // Where tiles are few this leaves lines out; fetching each was up to 17% slower, the CPU follows by
        // itself.
        __builtin_prefetch(ahead);
        ahead += ahead_step;
        weights += kUnrolled * kStepBytes;
        input.go_on(kUnrolled);
      }
      for (; k > 0; --k) {
        Arithmetic::template step<kPixels>(sum, input, 0, weights);
        weights += kStepBytes;
        input.go_on(1);
      }
      left -= now;
      room -= now;
      if (room > 0 || (left == 0 && tap + 1 == common.tap_count)) continue;
      room = kChunk;
      move_to_total<kPixels>(sum, total, !moved);
      moved = true;
    }
  }
  if (moved) add_total<kPixels>(sum, total);
#pragma GCC unroll 2
  for (int v = 0; v < 2; ++v)
    with_writer<T>(
        common, tile, first + v * kLanes, [&](const auto& writer, int lanes) __attribute__((always_inline)) {
          const int64_t at = (first + v * kLanes) * sizeof(T);
#pragma GCC unroll 6
          for (int pixel = 0; pixel < kPixels; ++pixel)
            writer.write(sum[pixel][v], tile.residual[pixel], at, tile.out[pixel] + at, lanes);
        });
}

// Where a strip will write, and what it will add, comes to L1 while the tile computes.
template <typename T>
FUSEDRES_INLINE void prefetch_outputs(const TileCommon& common, const Tile& tile, int strip) {
  for (int64_t row = 0; row < common.rows; ++row)
    for (int64_t line = 0; line < int64_t{sizeof(T)} * kPanel; line += 64) {
      __builtin_prefetch(tile.out[strip] + row * common.out_step + line);
      if (tile.residual[strip] != nullptr)
        __builtin_prefetch(tile.residual[strip] + row * common.residual_step + line);
    }
}

template <class Arithmetic, int kPixels>
void vector_tile(const TileCommon& common, const Tile& tile) {
  for (int pixel = 0; pixel < kPixels; ++pixel)
    prefetch_outputs<typename Arithmetic::Element>(common, tile, pixel);
  const int64_t steps = common.run / Arithmetic::kGroup * common.tap_count;
  const int64_t fetches = std::max<int64_t>(steps / kUnrolled, 1);
  const int64_t ahead_step = (tile.ahead_bytes + kPasses * fetches - 1) / (kPasses * fetches);
  for (int64_t pass = 0; pass < kPasses && pass * kPass < tile.channels; ++pass)
    vector_pass<Arithmetic, kPixels>(
        common, tile, pass * kPass, tile.weights + pass * steps * 4 * kPass,
        tile.ahead + pass * fetches * ahead_step, ahead_step);
}

// Every strip is one pixel.
template <class Arithmetic>
TileKernel vector_tile_of(int64_t, int64_t pixels) {
  static constexpr TileKernel kernels[] = {vector_tile<Arithmetic, 1>, vector_tile<Arithmetic, 2>,
                                           vector_tile<Arithmetic, 3>, vector_tile<Arithmetic, 4>,
                                           vector_tile<Arithmetic, 5>, vector_tile<Arithmetic, 6>};
  static_assert(sizeof(kernels) / sizeof(kernels[0]) == kTilePixels);
  return kernels[pixels - 1];
}

template <class Arithmetic>
constexpr conv::TileFamily kVectorTiles = {
    .strips = kTilePixels,
    .max_rows = 1,
    .pass = kPass,
    .input_group = Arithmetic::kGroup,
    .kernel = vector_tile_of<Arithmetic>,
    .enter = nullptr,
    .leave = nullptr,
    .can_round = kRounds<typename Arithmetic::Element>};

}  // namespace fusedres::FUSEDRES_ISA
