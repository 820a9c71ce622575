// The register tile of narrow groups: 4, 8 or 16 channels a group and as many filters. Include only from
// *_<isa>.cpp.
//
// Lanes are filters and channels at once. Of a quad of filters, lane f holds the quad's input channel f of a
// block of 4; its product with the weight of filter f + j (mod 4) goes to the sums of turn j, which are
// turned back and added at the end. No lane is wasted and nothing is broadcast or permuted within the loop,
// where a panel of 32 filters with zeros between its groups would do 2 to 8 times the work.
#pragma once

#include "cpu/conv/vector_tile.h"

namespace fusedres::FUSEDRES_ISA {

// Pixels by 4 turns: 24 of AVX-512's 32 registers, or 12 of 16.
constexpr int kGroupRows = kLanes == 16 ? 6 : 3;

// Block `block` of kBlocks, each for the group in which a lane lies, of the channels that a vector of filters
// reads. `group` points at the first of them that belongs to the vector's first group.
template <int kBlocks>
FUSEDRES_INLINE Vec load_block(const float* group, int block) {
#if defined(__AVX512F__)
  if constexpr (kBlocks == 1) return load(group, kLanes);
  if constexpr (kBlocks == 4) return _mm512_broadcast_f32x4(_mm_loadu_ps(group + 4 * block));
  const __m512 both = _mm512_loadu_ps(group);
  return block == 0 ? _mm512_shuffle_f32x4(both, both, 0xa0) : _mm512_shuffle_f32x4(both, both, 0xf5);
#elif defined(__AVX2__)
  if constexpr (kBlocks == 1) return load(group, kLanes);
  return _mm256_broadcast_ps(reinterpret_cast<const __m128*>(group + 4 * block));
#else
  return load(group + 4 * block, kLanes);
#endif
}

// Lane f of each quad takes lane f - kTurn (mod 4).
template <int kTurn>
FUSEDRES_INLINE Vec turned(Vec x) {
  constexpr int kFrom[4] = {(4 - kTurn) % 4, (5 - kTurn) % 4, (6 - kTurn) % 4, (7 - kTurn) % 4};
#if defined(__AVX2__)
  constexpr int kOrder = kFrom[0] | kFrom[1] << 2 | kFrom[2] << 4 | kFrom[3] << 6;
#endif
#if defined(__AVX512F__)
  return _mm512_permute_ps(x, kOrder);
#elif defined(__AVX2__)
  return _mm256_permute_ps(x, kOrder);
#else
  return Vec{x[kFrom[0]], x[kFrom[1]], x[kFrom[2]], x[kFrom[3]]};
#endif
}

// kLanes filters of the panel from `first`.
template <int kBlocks, int kRows>
FUSEDRES_INLINE void group_pass(const TileCommon& common, const Tile& tile, int half, int64_t first) {
  Vec sum[kRows][4] = {};
  const char* weights = tile.weights + first * 4;
  const char* group = tile.in[half] + first / (4 * kBlocks) * (4 * kBlocks) * 4;
  for (int64_t tap = 0; tap < common.tap_count; ++tap) {
    const char* in = group + common.taps[tap];
#pragma GCC unroll 4
    for (int block = 0; block < kBlocks; ++block) {
      Vec b[4];
#pragma GCC unroll 4
      for (int turn = 0; turn < 4; ++turn) b[turn] = read<Vec>(weights + turn * 4 * kPanel);
#pragma GCC unroll 6
      for (int row = 0; row < kRows; ++row) {
        const Vec a = load_block<kBlocks>(reinterpret_cast<const float*>(in + row * common.in_step), block);
#pragma GCC unroll 4
        for (int turn = 0; turn < 4; ++turn) sum[row][turn] = multiply_add(a, b[turn], sum[row][turn]);
      }
      weights += 4 * 4 * kPanel;
    }
  }
  with_writer<float>(common, tile, first, [&](const auto& writer, int lanes) __attribute__((always_inline)) {
#pragma GCC unroll 6
    for (int row = 0; row < kRows; ++row)
      if (row >= tile.skip[half])
        writer.write(
            (sum[row][0] + turned<1>(sum[row][1])) + (turned<2>(sum[row][2]) + turned<3>(sum[row][3])),
            tile.residual[half], row * common.residual_step + first * 4,
            tile.out[half] + row * common.out_step + first * 4, lanes);
  });
}

template <int kBlocks, int kRows>
FUSEDRES_INLINE void group_panel(const TileCommon& common, const Tile& tile, int halves) {
  for (int half = 0; half < halves; ++half)
    for (int64_t first = 0; first < kPanel; first += kLanes)
      group_pass<kBlocks, kRows>(common, tile, half, first);
}

// The tile's outputs, and the pixels of the last tap's row that come after it: those above were read a row
// ago. A panel reads 128 bytes of each pixel, too far apart for the CPU's own prefetcher.
FUSEDRES_INLINE void prefetch_tile(const TileCommon& common, const Tile& tile, int half) {
  prefetch_outputs<float>(common, tile, half);
  const char* next = tile.in[half] + common.taps[common.tap_count - 1] + common.rows * common.in_step;
  for (int64_t row = 0; row < common.rows; ++row)
    for (int64_t line = 0; line < 4 * kPanel; line += 64)
      __builtin_prefetch(next + row * common.in_step + line);
}

template <int kRows, int kHalves>
void group_tile(const TileCommon& common, const Tile& tile) {
  for (int half = 0; half < kHalves; ++half) prefetch_tile(common, tile, half);
  for (int64_t byte = 0; byte < tile.ahead_bytes; byte += 64) __builtin_prefetch(tile.ahead + byte);
  switch (common.run) {  // channels a group
    case 4:
      return group_panel<1, kRows>(common, tile, kHalves);
    case 8:
      return group_panel<2, kRows>(common, tile, kHalves);
    default:
      return group_panel<4, kRows>(common, tile, kHalves);
  }
}

template <int kHalves>
TileKernel group_tile_of(int64_t rows) {
  static constexpr TileKernel kernels[] = {
      group_tile<1, kHalves>, group_tile<2, kHalves>,
      group_tile<3, kHalves>,
#if defined(__AVX512F__)
      group_tile<4, kHalves>, group_tile<5, kHalves>,
      group_tile<6, kHalves>
#endif
  };
  static_assert(sizeof(kernels) / sizeof(kernels[0]) == kGroupRows);
  return kernels[rows - 1];
}

inline TileKernel group_tile_kernel(int64_t rows, int64_t halves) {
  return halves == 2 ? group_tile_of<2>(rows) : group_tile_of<1>(rows);
}

constexpr conv::TileFamily kGroupTiles = {
    .strips = 2,
    .max_rows = kGroupRows,
    .pass = kPanel,
    .input_group = 4,
    .kernel = group_tile_kernel,
    .enter = nullptr,
    .leave = nullptr,
    .can_round = kRounds<float>};

}  // namespace fusedres::FUSEDRES_ISA
