#define FUSEDRES_ISA avx512
#include "cpu/conv/wgrad_kernels.h"

namespace fusedres::conv {

const WgradKernels kWgradAvx512 = avx512::wgrad_table(kWinogradAvx512);

}  // namespace fusedres::conv
