#define FUSEDRES_ISA avx512
#include "cpu/conv/group_tile.h"

namespace fusedres::conv {

const TileFamily kTilesGroupsAvx512 = {avx512::kGroupRows, 4, avx512::group_tile_kernel, nullptr, nullptr};

}  // namespace fusedres::conv
