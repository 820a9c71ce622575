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
  static const bool avx512 = active_isa() == Isa::kAvx512;
  if (!avx512) return false;
  static const bool bf16 = has_avx512_bf16();
  if (algorithm == Algorithm::kDirectBf16Dot) return bf16;
  if (algorithm == Algorithm::kDirectBf16Amx) {
    static const bool amx = bf16 && has_amx();
    return amx;
  }
  return true;
}

}  // namespace fusedres::conv
