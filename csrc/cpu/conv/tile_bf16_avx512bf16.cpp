// bf16 register tiles: vdpbf16ps adds two products of bf16 pairs to an fp32 sum.
#include "cpu/conv/register_tile.h"

namespace fusedres::conv {
namespace {

struct BFloat16 {
  static constexpr int64_t kGroup = 2;
  static __m512 multiply_add(__m512 a, __m512 b, __m512 sum) {
    return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
  }
  static __m512 load(const char* from, int vector, __mmask16 mask) {
    const __m256i bits = _mm256_maskz_loadu_epi16(mask, from + 32 * vector);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }
  static void store(char* to, int vector, __mmask16 mask, __m512 value) {
    _mm256_mask_storeu_epi16(to + 32 * vector, mask, (__m256i)_mm512_cvtneps_pbh(value));
  }
};

// Winograd's products, which stay in fp32. Nothing is added to them.
struct ProductsBf16 : BFloat16 {
  static __m512 load(const char* from, int vector, __mmask16 mask) {
    return _mm512_maskz_loadu_ps(mask, from + 64 * vector);
  }
  static void store(char* to, int vector, __mmask16 mask, __m512 value) {
    _mm512_mask_storeu_ps(to + 64 * vector, mask, value);
  }
};

template <class Arithmetic>
TileKernel kernel(int64_t rows, int64_t halves) {
  return halves == 2 ? register_tile_of<Arithmetic, 2>(rows) : register_tile_of<Arithmetic, 1>(rows);
}

}  // namespace

const TileFamily kTilesBf16Avx512 = {2, 7, kPanel, 2, kernel<BFloat16>, nullptr, nullptr};
const TileFamily kTilesProductsBf16Avx512 = {2, 7, kPanel, 2, kernel<ProductsBf16>, nullptr, nullptr};

}  // namespace fusedres::conv
