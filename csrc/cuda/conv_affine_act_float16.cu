#include "cuda/conv_affine_act_launch.cuh"

namespace fusedres::cuda {

template void launch_conv_affine_act<Half>(const ConvPlan&, const Target&);

}  // namespace fusedres::cuda
