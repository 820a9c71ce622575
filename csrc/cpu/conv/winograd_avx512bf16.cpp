#define FUSEDRES_ISA avx512bf16
#include "cpu/conv/winograd_transforms.h"

namespace fusedres::conv {

const WinogradTransforms kWinogradBf16Avx512 = avx512bf16::kTransforms<avx512bf16::F2, BFloat16>;

}  // namespace fusedres::conv
