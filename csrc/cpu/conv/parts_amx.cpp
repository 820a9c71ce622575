#include "cpu/conv/parts.h"

#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC bug 105593
#include "cpu/conv/parts_amx.h"
#include "cpu/conv/shape.h"

namespace fusedres::conv {
namespace {

template <int kParts>
void pack(const float* lines, int64_t channels, int64_t half, BFloat16* out) {
  const auto filters = [&](int64_t c, int64_t v) {
    return c < channels ? _mm512_loadu_ps(lines + c * kPanel + 16 * v) : _mm512_setzero_ps();
  };
  for (int64_t v = 0; v < 2; ++v) {
    auto* tiles = reinterpret_cast<char*>(out + v * half);
    for (int64_t c = 0; c < channels; c += 32, tiles += kParts * kTileBytes)
      for (int64_t i = 0; i < 16; ++i)
        split<kParts>(filters(c + i, v), filters(c + 16 + i, v), tiles + i * 64);
  }
}

}  // namespace

void pack_parts(const float* lines, int64_t channels, int64_t parts, int64_t half, BFloat16* out) {
  parts == 3 ? pack<3>(lines, channels, half, out) : pack<2>(lines, channels, half, out);
}

}  // namespace fusedres::conv
