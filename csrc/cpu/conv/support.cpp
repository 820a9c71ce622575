#include "cpu/conv/support.h"

#include "cpu/isa.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace fusedres::conv {
namespace {

#if defined(__x86_64__)
// cpuid leaf 7: AVX512-BF16 is bit 5 of eax in subleaf 1, AMX-BF16 and AMX-TILE bits 22 and 24 of edx in
// subleaf 0.
bool has_avx512_bf16() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a >> 5 & 1) != 0;
}

// Linux gives a process the tile registers on request (arch_prctl, kernel 5.16).
bool has_amx() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d >> 22 & 1) != 0 && (d >> 24 & 1) != 0 &&
         syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
#else
bool has_avx512_bf16() { return false; }
bool has_amx() { return false; }
#endif

}  // namespace

bool can_run(Algorithm algorithm) {
  if (algorithm == Algorithm::kWinogradBf16Dot) return tile_isa(Algorithm::kDirectBf16Dot) == Isa::kAvx512;
  if (algorithm != Algorithm::kDirectBf16Amx && parts_of(algorithm) == 0) return true;
  static const bool amx = active_isa() == Isa::kAvx512 && has_avx512_bf16() && has_amx();
  return amx;
}

bool can_run_wgrad(Algorithm algorithm) {
  switch (algorithm) {
    case Algorithm::kDirectF32:
    case Algorithm::kWinogradF32:
      return active_isa() != Isa::kPortable;
    case Algorithm::kDirectBf16Amx:
      return can_run(algorithm);
    default:
      return false;
  }
}

const WgradKernels& wgrad_kernels() { return active_isa() == Isa::kAvx512 ? kWgradAvx512 : kWgradAvx2; }

Isa tile_isa(Algorithm algorithm) {
  static const bool bf16 = has_avx512_bf16();
  const Isa isa = active_isa();
  return algorithm == Algorithm::kDirectBf16Dot && isa == Isa::kAvx512 && !bf16 ? Isa::kAvx2 : isa;
}

const TileFamily& tiles_of(const PackedHeader& header) {
  const auto algorithm = static_cast<Algorithm>(header.algorithm);
  if (algorithm == Algorithm::kDirectBf16Amx) return kTilesBf16Amx;
  if (algorithm == Algorithm::kWinogradBf16Dot) return kTilesProductsBf16Avx512;
  if (parts_of(algorithm) > 0) return parts_of(algorithm) == 3 ? kTilesF32Amx : kTiles2F32Amx;
  const TileFamily* const families[3][3] = {
      {&kTilesF32Portable, &kTilesF32Avx2, &kTilesF32Avx512},
      {&kTilesBf16Portable, &kTilesBf16Avx2, &kTilesBf16Avx512},
      {&kTilesGroupsPortable, &kTilesGroupsAvx2, &kTilesGroupsAvx512}};
  const int kind = quad_blocks(header) > 0 ? 2 : data_type(algorithm) == DataType::kBFloat16 ? 1 : 0;
  return *families[kind][static_cast<int>(tile_isa(algorithm))];
}

const WinogradTransforms& transforms_of(const PackedHeader& header) {
  static const WinogradTransforms* const sets[2][3] = {
      {&kWinogradPortable, &kWinogradAvx2, &kWinogradAvx512},
      {&kWinogradF4Portable, &kWinogradF4Avx2, &kWinogradF4Avx512}};
  const auto algorithm = static_cast<Algorithm>(header.algorithm);
  if (algorithm == Algorithm::kWinogradBf16Dot) return kWinogradBf16Avx512;
  return *sets[winograd_outputs(algorithm) == 4][static_cast<int>(tile_isa(algorithm))];
}

}  // namespace fusedres::conv
