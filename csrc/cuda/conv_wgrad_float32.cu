#include "cuda/conv_wgrad_launch.cuh"

namespace fusedres::cuda {

template void launch_conv_wgrad<float>(const ConvWgradLaunch&, const Target&);
template void launch_conv_wgrad_reduce<float>(const ConvWgradReduceParams&, int, const Target&);

}  // namespace fusedres::cuda
