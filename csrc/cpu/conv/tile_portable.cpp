#define FUSEDRES_ISA portable
#include "cpu/conv/group_tile.h"
#include "cpu/conv/vector_tile.h"

namespace fusedres::conv {

const TileFamily kTilesF32Portable = portable::kVectorTiles<portable::Float32>;
const TileFamily kTilesBf16Portable = portable::kVectorTiles<portable::PairsBf16>;
const TileFamily kTilesGroupsPortable = portable::kGroupTiles;

}  // namespace fusedres::conv
