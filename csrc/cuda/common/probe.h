#pragma once

#include <cuda_runtime.h>

namespace fusedres::cuda {

// cudaSuccess where kernels of this build can run on the current device.
cudaError_t probe();

}  // namespace fusedres::cuda
