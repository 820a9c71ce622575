#include "cuda/bn_update_running_kernel.cuh"

namespace fusedres::cuda {

void launch_bn_update_running(const BnUpdateRunningParams& params, int layers, const Target& target) {
  const Grid grid{dim3(static_cast<unsigned>(layers)), dim3(kRunningThreads)};
  launch("bn_update_running", bn_update_running_kernel, grid, target, params);
}

}  // namespace fusedres::cuda
