// Which of the engine's algorithms this CPU, and this process, can run, and by which tiles.
#pragma once

#include "cpu/conv/packed.h"
#include "cpu/conv/shape.h"
#include "cpu/conv/tile.h"
#include "cpu/isa.h"

namespace fusedres::conv {

// Direct convolution runs everywhere, Winograd with AVX-512 and AMX where it is, in so far as
// FUSEDRES_CPU_ISA allows them.
bool can_run(Algorithm algorithm);

// wgrad has kernels of AVX-512 and AMX alone.
bool can_run_wgrad(Algorithm algorithm);

// The instruction set of the algorithm's tiles. kDirectBf16Dot's is AVX-512 only with AVX512-BF16.
Isa tile_isa(Algorithm algorithm);

const TileFamily& tiles_of(const PackedHeader& header);

}  // namespace fusedres::conv
