#define FUSEDRES_ISA portable
#include "cpu/conv/group_tile.h"
#include "cpu/conv/vector_tile.h"

namespace fusedres::conv {

const TileFamily kTilesF32Portable = {
    portable::kTileRows, 1, portable::vector_tile_of<portable::Float32>, nullptr, nullptr};
const TileFamily kTilesBf16Portable = {
    portable::kTileRows, 2, portable::vector_tile_of<portable::PairsBf16>, nullptr, nullptr};
const TileFamily kTilesGroupsPortable = {
    portable::kGroupRows, 4, portable::group_tile_kernel, nullptr, nullptr};

}  // namespace fusedres::conv
