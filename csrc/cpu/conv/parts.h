// Weights as bf16 parts of fp32 values.
#pragma once

#include <cstdint>

#include "common/element.h"

namespace fusedres::conv {

// Of 32 filters, [2][channels / 32][part][16][16][2]: B tiles of 16 filters, whose rows pair channels i and i
// + 16; beyond the last channel zeros. `lines` are [channels][32]; the filters' halves lie `half` values
// apart.
void pack_parts(const float* lines, int64_t channels, int64_t parts, int64_t half, BFloat16* out);

}  // namespace fusedres::conv
