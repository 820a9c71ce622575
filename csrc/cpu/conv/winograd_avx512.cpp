#define FUSEDRES_ISA avx512
#include "cpu/conv/winograd_transforms.h"

namespace fusedres::conv {

const WinogradTransforms kWinogradAvx512 = avx512::kTransforms<avx512::F2>;
const WinogradTransforms kWinogradF4Avx512 = avx512::kTransforms<avx512::F4>;

}  // namespace fusedres::conv
