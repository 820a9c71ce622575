#define FUSEDRES_ISA avx512
#include "cpu/conv/group_tile.h"

namespace fusedres::conv {

const TileFamily kTilesGroupsAvx512 = avx512::kGroupTiles;

}  // namespace fusedres::conv
