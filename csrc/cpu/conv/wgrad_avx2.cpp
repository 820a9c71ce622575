#define FUSEDRES_ISA avx2
#include "cpu/conv/wgrad_kernels.h"

namespace fusedres::conv {

const WgradKernels kWgradAvx2 = avx2::wgrad_table(kWinogradAvx2);

}  // namespace fusedres::conv
