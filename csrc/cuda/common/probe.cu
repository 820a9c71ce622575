// Whether the build has code for the current device: asked of a kernel that is compiled like all others.
#include "cuda/common/probe.h"

namespace fusedres::cuda {
namespace {

__global__ void probe_kernel() {}

}  // namespace

cudaError_t probe() {
  cudaFuncAttributes attributes;
  const cudaError_t error = cudaFuncGetAttributes(&attributes, probe_kernel);
  if (error != cudaSuccess) cudaGetLastError();  // it is reported by its own name, not by the next call's
  return error;
}

}  // namespace fusedres::cuda
