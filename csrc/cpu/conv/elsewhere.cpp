// The instruction sets' tables on a machine that has none of them, where tiles are the portable ones. Nothing
// reads these; the library is loaded whole and needs them defined.
#include "cpu/conv/parts.h"
#include "cpu/conv/tile.h"
#include "cpu/conv/wgrad.h"
#include "cpu/conv/wgrad_bf16.h"
#include "cpu/conv/winograd.h"

#if !defined(__x86_64__)
namespace fusedres::conv {

const TileFamily kTilesF32Avx2{};
const TileFamily kTilesBf16Avx2{};
const TileFamily kTilesGroupsAvx2{};
const TileFamily kTilesGroupsAvx512{};
const TileFamily kTilesF32Avx512{};
const TileFamily kTilesBf16Avx512{};
const TileFamily kTilesProductsBf16Avx512{};
const TileFamily kTilesBf16Amx{};
const TileFamily kTilesF32Amx{};
const TileFamily kTiles2F32Amx{};
void pack_parts(const float*, int64_t, int64_t, int64_t, BFloat16*) {}
const WgradKernels kWgradAvx2{};
const WgradKernels kWgradAvx512{};
const WgradBf16Kernels kWgradBf16Amx{};
const WinogradTransforms kWinogradAvx2{};
const WinogradTransforms kWinogradF4Avx2{};
const WinogradTransforms kWinogradAvx512{};
const WinogradTransforms kWinogradF4Avx512{};
const WinogradTransforms kWinogradBf16Avx512{};

}  // namespace fusedres::conv
#endif
