#define FUSEDRES_ISA avx2
#include "cpu/conv/group_tile.h"
#include "cpu/conv/vector_tile.h"

namespace fusedres::conv {

const TileFamily kTilesF32Avx2 = {avx2::kTileRows, 1, avx2::vector_tile_of<avx2::Float32>, nullptr, nullptr};
const TileFamily kTilesBf16Avx2 = {
    avx2::kTileRows, 2, avx2::vector_tile_of<avx2::PairsBf16>, nullptr, nullptr};
const TileFamily kTilesGroupsAvx2 = {avx2::kGroupRows, 4, avx2::group_tile_kernel, nullptr, nullptr};

}  // namespace fusedres::conv
