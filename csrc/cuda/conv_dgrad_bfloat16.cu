#include "cuda/conv_dgrad_launch.cuh"

namespace fusedres::cuda {

template void launch_conv_dgrad<BFloat16>(const ConvPlan&, const Target&);

}  // namespace fusedres::cuda
