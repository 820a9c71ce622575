// fp32 register tiles.
#include "cpu/conv/register_tile.h"

namespace fusedres::conv {
namespace {

struct Float32 {
  static constexpr int64_t kGroup = 1;
  static __m512 multiply_add(__m512 a, __m512 b, __m512 sum) { return _mm512_fmadd_ps(a, b, sum); }
  static __m512 load(const char* from, int vector, __mmask16 mask) {
    return _mm512_maskz_loadu_ps(mask, from + 64 * vector);
  }
  static void store(char* to, int vector, __mmask16 mask, __m512 value) {
    _mm512_mask_storeu_ps(to + 64 * vector, mask, value);
  }
};

TileKernel kernel(int64_t rows, int64_t halves) {
  return halves == 2 ? register_tile_of<Float32, 2>(rows) : register_tile_of<Float32, 1>(rows);
}

}  // namespace

const TileFamily kTilesF32Avx512 = {7, 1, kernel, nullptr, nullptr};

}  // namespace fusedres::conv
