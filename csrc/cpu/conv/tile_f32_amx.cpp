// fp32 tiles on AMX. An fp32 value is the sum of three bf16 values, and the product of two is, but for 2^-24
// of it at most, the sum of six products of parts: high high, middle high, low high, high middle, middle
// middle, high low. A multiplication of bf16 tiles sums 32 channels before it rounds to the running sums, so
// these sums round less than a chain of FMAs. With two parts and three products, up to 2^-15 of a product is
// left out (docs/numerics.md).
//
// An infinity, or a value above 3.39e38 that rounds to one in bf16, comes out as a NaN: a part of it is the
// difference of infinities.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC bug 105593
#include <immintrin.h>

#include <algorithm>

#include "cpu/conv/amx.h"
#include "cpu/conv/parts_amx.h"
#include "cpu/conv/shape.h"
#include "cpu/conv/tile.h"

namespace fusedres::conv {
namespace {

constexpr int64_t kStep = 32;       // channels of one multiplication
constexpr int64_t kMostSteps = 16;  // in one chain of sums: 512 channels
constexpr int64_t kSums = 256;      // values of a tile

// Of a step of kStep channels.
template <int kParts>
struct Step {
  static constexpr int64_t kHalfBytes = kParts * kTileBytes;  // a half's parts, or those of 16 filters
  static constexpr int64_t kBytes = 2 * kHalfBytes;           // of both halves
};

int64_t steps_of(int64_t run) { return ceil_div(run, kStep); }

template <int kParts>
int64_t packed_bytes(int64_t run) {
  return steps_of(run) * Step<kParts>::kBytes;
}

// Tiles 0, 1: the halves' sums. 2, 3: their inputs. 4: weights, a row for each pair of channels. More of the
// eight registers are slower where these are scarce, as in tile_bf16_amx.cpp.
void enter(const TileCommon& common) {
  TileConfig config;
  for (int tile = 0; tile < 5; ++tile) {
    config.rows[tile] = tile < 4 ? static_cast<uint8_t>(common.rows) : 16;
    config.row_bytes[tile] = 64;
  }
  load_config(config);
}

void leave() { _tile_release(); }

// [channels / 32][half][part][pixel][16][2]
template <int kParts>
void pack(const char* const* halves, int64_t rows, int64_t step, int64_t run, char* out) {
  for (int64_t half = 0; half < 2; ++half)
    for (int64_t row = 0; row < rows; ++row) {
      const auto* values = reinterpret_cast<const float*>(halves[half] + row * step);
      char* to = out + half * Step<kParts>::kHalfBytes + row * 64;
      int64_t left = run;
      for (; left >= kStep; left -= kStep, values += kStep, to += Step<kParts>::kBytes)
        split<kParts>(_mm512_loadu_ps(values), _mm512_loadu_ps(values + 16), to);
      if (left == 0) continue;
      const uint32_t lanes = (uint32_t{1} << left) - 1;
      const auto low = static_cast<__mmask16>(lanes), high = static_cast<__mmask16>(lanes >> 16);
      split<kParts>(_mm512_maskz_loadu_ps(low, values), _mm512_maskz_loadu_ps(high, values + 16), to);
    }
}

// One part of a step's operands, and their products.
template <int kParts, int kHalves>
struct Operands {
  const char *input, *weights;

  void load_input(int part) const {
    _tile_loadd(2, input + part * kTileBytes, 64);
    if constexpr (kHalves == 2) _tile_loadd(3, input + Step<kParts>::kHalfBytes + part * kTileBytes, 64);
  }
  void load_weights(int part) const { _tile_loadd(4, weights + part * kTileBytes, 64); }
  static void multiply() {
    _tile_dpbf16ps(0, 2, 4);
    if constexpr (kHalves == 2) _tile_dpbf16ps(1, 3, 4);
  }
};

// The products of a step, in an order that loads ten tiles for the twelve of three parts (15 where each part
// of the weights meets the input's one after the other) and six for the six of two.
template <int kParts, int kHalves>
inline __attribute__((always_inline)) void multiply_step(const Operands<kParts, kHalves>& step) {
  constexpr int kHigh = 0, kMiddle = 1, kLow = 2;
  step.load_weights(kHigh);
  if constexpr (kParts == 3) {
    step.load_input(kLow);
    step.multiply();
  }
  step.load_input(kMiddle);
  step.multiply();
  if constexpr (kParts == 3) {
    step.load_weights(kMiddle);
    step.multiply();
    step.load_input(kHigh);
    step.multiply();
    step.load_weights(kHigh);
    step.multiply();
    step.load_weights(kLow);
  } else {
    step.load_input(kHigh);
    step.multiply();
    step.load_weights(kMiddle);
  }
  step.multiply();
}

struct Ahead {
  const char* at;
  int64_t step;

  void fetch() {
    for (int64_t line = 0; line < step; line += 64) _mm_prefetch(at + line, _MM_HINT_T1);
    at += step;
  }
};

// The sums of up to kMostSteps steps by 16 filters.
template <int kParts, int kHalves>
void multiply(const char* input, const char* weights, int64_t steps, Ahead& ahead, float* sums) {
  _tile_zero(0);
  if constexpr (kHalves == 2) _tile_zero(1);
  for (int64_t k = 0; k < steps; ++k, input += Step<kParts>::kBytes, weights += Step<kParts>::kHalfBytes) {
    multiply_step(Operands<kParts, kHalves>{input, weights});
    ahead.fetch();
  }
  _tile_stored(0, sums, 64);
  if constexpr (kHalves == 2) _tile_stored(1, sums + kSums, 64);
}

void add_rows(const float* from, int64_t rows, float* to) {
  for (int64_t i = 0; i < rows * 16; i += 16)
    _mm512_store_ps(to + i, _mm512_add_ps(_mm512_load_ps(to + i), _mm512_load_ps(from + i)));
}

void store_half(const float* sums, const TileCommon& common, const Tile& tile, int half) {
  const __m512 floor = _mm512_set1_ps(common.floor);
  const __m512 scale[2] = {_mm512_loadu_ps(tile.scale), _mm512_loadu_ps(tile.scale + 16)};
  const __m512 shift[2] = {_mm512_loadu_ps(tile.shift), _mm512_loadu_ps(tile.shift + 16)};
  const auto lanes = static_cast<uint32_t>((uint64_t{1} << tile.channels) - 1);
  const __mmask16 mask[2] = {static_cast<__mmask16>(lanes), static_cast<__mmask16>(lanes >> 16)};
  sums += kSums * half;
  for (int64_t row = tile.skip[half]; row < common.rows; ++row) {
    char* out = tile.out[half] + row * common.out_step;
    const char* residual = tile.residual[half];
    if (residual != nullptr) residual += row * common.residual_step;
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) {
      __m512 value = _mm512_fmadd_ps(_mm512_load_ps(sums + 2 * kSums * v + row * 16), scale[v], shift[v]);
      if (residual != nullptr)
        value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(mask[v], residual + 64 * v));
      // In this order of operands a NaN passes through, as it does through torch's ReLU.
      value = _mm512_max_ps(floor, value);
      _mm512_mask_storeu_ps(out + 64 * v, mask[v], value);
    }
  }
}

// Where a tile will write, and what it will add, comes to L2 while it computes: in L1 the rows of 32 pixels
// of a map whose channels are a power of two would fall into one set (64 -> 256: 55 to 71 GFLOP/s).
void prefetch_outputs(const TileCommon& common, const Tile& tile, int half) {
  for (int64_t row = 0; row < common.rows; ++row) {
    for (int64_t line = 0; line < 128; line += 64) {
      _mm_prefetch(tile.out[half] + row * common.out_step + line, _MM_HINT_T1);
      if (tile.residual[half] != nullptr)
        _mm_prefetch(tile.residual[half] + row * common.residual_step + line, _MM_HINT_T1);
    }
  }
}

template <int kParts, int kHalves>
void parts_tile(const TileCommon& common, const Tile& tile) {
  const int64_t steps = steps_of(common.run) * common.tap_count;
  Ahead ahead{tile.ahead, (tile.ahead_bytes + 2 * steps - 1) / (2 * steps)};
  prefetch_outputs(common, tile, 0);
  if constexpr (kHalves == 2) prefetch_outputs(common, tile, 1);
  alignas(64) float sums[2][2 * kSums], next[2 * kSums];
  const char* weights = tile.weights;
  for (auto& of_filters : sums) {
    for (int64_t from = 0; from < steps; from += kMostSteps) {
      const int64_t now = std::min(kMostSteps, steps - from);
      multiply<kParts, kHalves>(
          tile.in[0] + from * Step<kParts>::kBytes, weights, now, ahead, from == 0 ? of_filters : next);
      weights += now * Step<kParts>::kHalfBytes;
      if (from > 0)
        for (int64_t i = 0; i < kHalves * kSums; i += kSums) add_rows(next + i, common.rows, of_filters + i);
    }
  }
  store_half(sums[0], common, tile, 0);
  if constexpr (kHalves == 2) store_half(sums[0], common, tile, 1);
}

template <int kParts>
TileKernel kernel(int64_t, int64_t halves) {
  return halves == 2 ? parts_tile<kParts, 2> : parts_tile<kParts, 1>;
}

template <int kParts>
constexpr InputPacking kPacking = {0, packed_bytes<kParts>, pack<kParts>, kernel<kParts>};

}  // namespace

const TileFamily kTilesF32Amx = {2, 16, kPanel, kStep, kernel<3>, enter, leave, &kPacking<3>};
const TileFamily kTiles2F32Amx = {2, 16, kPanel, kStep, kernel<2>, enter, leave, &kPacking<2>};

}  // namespace fusedres::conv
