#define FUSEDRES_ISA avx2
#include "cpu/conv/winograd_transforms.h"

namespace fusedres::conv {

const WinogradTransforms kWinogradAvx2 = avx2::kTransforms<avx2::F2>;
const WinogradTransforms kWinogradF4Avx2 = avx2::kTransforms<avx2::F4>;

}  // namespace fusedres::conv
