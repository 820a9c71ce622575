// Which of the engine's algorithms this CPU, and this process, can run.
#pragma once

#include "cpu/conv/shape.h"

namespace fusedres::conv {

// FUSEDRES_CPU_ISA below avx512 switches the engine off; bf16 also needs the CPU's AVX512-BF16 or AMX.
bool can_run(Algorithm algorithm);

}  // namespace fusedres::conv
