#include "cuda/conv_wgrad_launch.cuh"

namespace fusedres::cuda {

template void launch_conv_wgrad<BFloat16>(const ConvWgradLaunch&, const Target&);
template void launch_conv_wgrad_reduce<BFloat16>(const ConvWgradReduceParams&, int, const Target&);

}  // namespace fusedres::cuda
