#include "cuda/bn_act_bwd_reduce_launch.cuh"

namespace fusedres::cuda {

FUSEDRES_INSTANTIATE_BN_ACT_BWD_REDUCE(float);

}  // namespace fusedres::cuda
