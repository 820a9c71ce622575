#include "cuda/conv_wgrad_launch.cuh"

namespace fusedres::cuda {

template void launch_conv_wgrad<Half>(const ConvWgradLaunch&, const Target&);
template void launch_conv_wgrad_reduce<Half>(const ConvWgradReduceParams&, int, const Target&);

}  // namespace fusedres::cuda
