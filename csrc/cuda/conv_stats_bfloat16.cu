#include "cuda/conv_stats_launch.cuh"

namespace fusedres::cuda {

template void launch_conv_stats<BFloat16>(const ConvPlan&, const Target&);

}  // namespace fusedres::cuda
