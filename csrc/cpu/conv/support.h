// Which of the engine's algorithms this CPU, and this process, can run, and by which tiles.
#pragma once

#include "cpu/conv/packed.h"
#include "cpu/conv/shape.h"
#include "cpu/conv/tile.h"
#include "cpu/conv/wgrad.h"
#include "cpu/conv/winograd.h"
#include "cpu/isa.h"

namespace fusedres::conv {

// Direct convolution and Winograd run everywhere, AMX where it is and FUSEDRES_CPU_ISA allows it.
bool can_run(Algorithm algorithm);

// wgrad has kernels of AVX2, AVX-512 and AMX alone, and none of the algorithms that round more.
bool can_run_wgrad(Algorithm algorithm);

// fp32's, where it can run.
const WgradKernels& wgrad_kernels();

// The instruction set of the algorithm's tiles. kDirectBf16Dot's is AVX-512 only with AVX512-BF16.
Isa tile_isa(Algorithm algorithm);

const TileFamily& tiles_of(const PackedHeader& header);

// Of Winograd's algorithms.
const WinogradTransforms& transforms_of(const PackedHeader& header);

}  // namespace fusedres::conv
