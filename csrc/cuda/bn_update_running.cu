#include "cuda/bn_update_running_kernel.cuh"

namespace fusedres::cuda {

void launch_bn_update_running(const BnUpdateRunningParams& params, const Target& target) {
  launch("bn_update_running", bn_update_running_kernel, {dim3(1), dim3(kRunningThreads)}, target, params);
}

}  // namespace fusedres::cuda
