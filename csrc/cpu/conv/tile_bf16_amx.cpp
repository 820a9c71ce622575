// bf16 tiles on AMX: tdpbf16ps multiplies 16 pixels x 32 channels by 32 channels x 16 filters in 16 cycles.
// Two halves of 16 pixels by 16 filters at a time, in four of the eight tile registers: on a shared core each
// further register that is written can cost more than the loads that it saves (docs/cpu.md has the table).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC bug 105593
#include <immintrin.h>

#include "cpu/conv/amx.h"
#include "cpu/conv/tile.h"

namespace fusedres::conv {
namespace {

constexpr int64_t kStep = 32;  // channels of one multiplication

int64_t step_of(const TileCommon& common) { return common.run < kStep ? common.run : kStep; }

// Tiles 0, 1: sums. 2: a half's input. 3: weights, a row for each pair of channels.
void enter(const TileCommon& common) {
  TileConfig config;
  const auto pixels = static_cast<uint8_t>(common.rows);
  const int64_t step = step_of(common);
  for (int tile = 0; tile < 4; ++tile) {
    config.rows[tile] = tile < 3 ? pixels : static_cast<uint8_t>(step / 2);
    config.row_bytes[tile] = static_cast<uint16_t>(tile == 2 ? step * 2 : 64);
  }
  load_config(config);
}

void leave() { _tile_release(); }

__m512 floats_of(__m256i bits) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

void store_half(const float* sums, const TileCommon& common, const Tile& tile, int half) {
  const __m512 floor = _mm512_set1_ps(common.floor);
  const __m512 scale[2] = {_mm512_loadu_ps(tile.scale), _mm512_loadu_ps(tile.scale + 16)};
  const __m512 shift[2] = {_mm512_loadu_ps(tile.shift), _mm512_loadu_ps(tile.shift + 16)};
  const auto mask = static_cast<__mmask32>((uint64_t{1} << tile.channels) - 1);
  for (int64_t row = tile.skip[half]; row < common.rows; ++row) {
    __m512 low = _mm512_fmadd_ps(_mm512_load_ps(sums + row * 16), scale[0], shift[0]);
    __m512 high = _mm512_fmadd_ps(_mm512_load_ps(sums + 256 + row * 16), scale[1], shift[1]);
    if (tile.residual[half] != nullptr) {
      const __m512i residual =
          _mm512_maskz_loadu_epi16(mask, tile.residual[half] + row * common.residual_step);
      low = _mm512_add_ps(low, floats_of(_mm512_castsi512_si256(residual)));
      high = _mm512_add_ps(high, floats_of(_mm512_extracti64x4_epi64(residual, 1)));
    }
    // In this order of operands a NaN passes through, as it does through torch's ReLU.
    low = _mm512_max_ps(floor, low);
    high = _mm512_max_ps(floor, high);
    _mm512_mask_storeu_epi16(
        tile.out[half] + row * common.out_step, mask, (__m512i)_mm512_cvtne2ps_pbh(high, low));
  }
}

// Where a tile will write, and what it will add, comes to L1 while it computes.
void prefetch_outputs(const TileCommon& common, const Tile& tile, int half) {
  for (int64_t row = 0; row < common.rows; ++row) {
    _mm_prefetch(tile.out[half] + row * common.out_step, _MM_HINT_T0);
    if (tile.residual[half] != nullptr)
      _mm_prefetch(tile.residual[half] + row * common.residual_step, _MM_HINT_T0);
  }
}

// The sums of 16 filters, in tiles 0 and 1; `weights` point at the filters' half of each step.
template <int kHalves>
void multiply(
    const TileCommon& common, const Tile& tile, const char* weights, const char* ahead, int64_t ahead_step) {
  const int64_t step = step_of(common), steps = common.run / step;
  const int64_t weight_step = step * 64;
  _tile_zero(0);
  if constexpr (kHalves == 2) _tile_zero(1);
  for (int64_t tap = 0; tap < common.tap_count; ++tap) {
    const char* a0 = tile.in[0] + common.taps[tap];
    const char* a1 = kHalves == 2 ? tile.in[1] + common.taps[tap] : nullptr;
    for (int64_t k = 0; k < steps; ++k) {
      _tile_loadd(3, weights, 64);
      _tile_loadd(2, a0, common.in_step);
      _tile_dpbf16ps(0, 2, 3);
      if constexpr (kHalves == 2) {
        _tile_loadd(2, a1, common.in_step);
        _tile_dpbf16ps(1, 2, 3);
        a1 += 2 * step;
      }
      for (int64_t line = 0; line < ahead_step; line += 64) _mm_prefetch(ahead + line, _MM_HINT_T1);
      a0 += 2 * step;
      weights += weight_step;
      ahead += ahead_step;
    }
  }
}

template <int kHalves>
void amx_tile(const TileCommon& common, const Tile& tile) {
  const int64_t step = step_of(common), steps = common.run / step * common.tap_count;
  const int64_t ahead_step = (tile.ahead_bytes + 2 * steps - 1) / (2 * steps);
  alignas(64) float sums[2][512];
  prefetch_outputs(common, tile, 0);
  if constexpr (kHalves == 2) prefetch_outputs(common, tile, 1);
  for (int64_t v = 0; v < 2; ++v) {
    multiply<kHalves>(
        common, tile, tile.weights + v * step * 32, tile.ahead + v * steps * ahead_step, ahead_step);
    _tile_stored(0, sums[0] + v * 256, 64);
    if constexpr (kHalves == 2) _tile_stored(1, sums[1] + v * 256, 64);
  }
  store_half(sums[0], common, tile, 0);
  if constexpr (kHalves == 2) store_half(sums[1], common, tile, 1);
}

TileKernel kernel(int64_t, int64_t halves) { return halves == 2 ? amx_tile<2> : amx_tile<1>; }

}  // namespace

const TileFamily kTilesBf16Amx = {2, 16, kPanel, kStep, kernel, enter, leave};

}  // namespace fusedres::conv
