#define FUSEDRES_ISA avx2
#include "cpu/conv/group_tile.h"
#include "cpu/conv/vector_tile.h"

namespace fusedres::conv {

const TileFamily kTilesF32Avx2 = avx2::kVectorTiles<avx2::Float32>;
const TileFamily kTilesBf16Avx2 = avx2::kVectorTiles<avx2::PairsBf16>;
const TileFamily kTilesGroupsAvx2 = avx2::kGroupTiles;

}  // namespace fusedres::conv
