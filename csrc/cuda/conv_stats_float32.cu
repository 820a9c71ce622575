#include "cuda/conv_stats_launch.cuh"

namespace fusedres::cuda {

template void launch_conv_stats<float>(const ConvPlan&, const Target&);

}  // namespace fusedres::cuda
