// The tiles that are compiled, by the name the host knows them by.
#pragma once

#include "cuda/conv/tile.cuh"

namespace fusedres::cuda {

// Eight warps at 128 registers: two blocks an SM, 64 KB of shared memory each.
using Tile128x128 = Tile<128, 128, 64, 32, 64, 4, 2>;
using Tile128x64 = Tile<128, 64, 64, 32, 64, 4, 3>;
// For groups of 32 channels.
using Tile128x32 = Tile<128, 32, 32, 32, 64, 4, 4>;
using Tile64x64 = Tile<64, 64, 32, 32, 64, 4, 3>;

}  // namespace fusedres::cuda
