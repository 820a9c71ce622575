// Which instruction set this process runs: the best the CPU has, or what FUSEDRES_CPU_ISA forces.
#pragma once

namespace fusedres {

enum class Isa { kPortable, kAvx2, kAvx512 };

// Read once. Throws std::runtime_error where FUSEDRES_CPU_ISA is not "portable", "avx2" or "avx512",
// or names an instruction set that this CPU (or this build) lacks.
Isa active_isa();

const char* isa_name(Isa isa);

}  // namespace fusedres
