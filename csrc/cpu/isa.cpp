#include "cpu/isa.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace fusedres {
namespace {

bool cpu_has(Isa isa) {
#if defined(__x86_64__)
  // The flags that build_support/plan.py compiles `_avx2` and `_avx512` sources with. F16C came before AVX2.
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (isa == Isa::kAvx2) return avx2;
  if (isa == Isa::kAvx512) {
    return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  }
#endif
  return isa == Isa::kPortable;
}

Isa choose() {
  const char* wish = std::getenv("FUSEDRES_CPU_ISA");
  const bool forced = wish != nullptr && *wish != '\0';
  for (Isa isa : {Isa::kAvx512, Isa::kAvx2, Isa::kPortable}) {
    if (forced && std::string(wish) != isa_name(isa)) continue;
    if (cpu_has(isa)) return isa;
    if (forced) throw std::runtime_error(std::string("FUSEDRES_CPU_ISA: this CPU has no ") + wish);
  }
  throw std::runtime_error(std::string("FUSEDRES_CPU_ISA: must be portable, avx2 or avx512; got ") + wish);
}

}  // namespace

Isa active_isa() {
  static const Isa isa = choose();
  return isa;
}

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kPortable:
      break;
  }
  return "portable";
}

}  // namespace fusedres
