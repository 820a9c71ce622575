#define FUSEDRES_ISA portable
#include "cpu/conv/winograd_transforms.h"

namespace fusedres::conv {

const WinogradTransforms kWinogradPortable = portable::kTransforms<portable::F2>;
const WinogradTransforms kWinogradF4Portable = portable::kTransforms<portable::F4>;

}  // namespace fusedres::conv
