#pragma once

#include "cuda/bn_update_running.h"

namespace fusedres::cuda {

constexpr int kRunningThreads = 512;

__device__ __forceinline__ void blend(const Param& running, int64_t channel, double batch, double factor) {
  running.set(channel, (1.0 - factor) * running.as_double(channel) + factor * batch);
}

// A block a layer, since the factor hangs on a count that is read by all before one writes it.
__global__ void __launch_bounds__(kRunningThreads)
    bn_update_running_kernel(const __grid_constant__ BnUpdateRunningParams k) {
  const RunningLayer& layer = k.layers[blockIdx.x];
  double factor = k.momentum;
  if (layer.batches != nullptr) {
    const int64_t batches = *layer.batches + 1;
    if (k.cumulative) factor = 1.0 / static_cast<double>(batches);
    __syncthreads();
    if (threadIdx.x == 0) *layer.batches = batches;
  }
  if (layer.empty) return;
  for (int64_t c = threadIdx.x; c < layer.channels; c += kRunningThreads) {
    blend(layer.running_mean, c, layer.mean[c], factor);
    blend(layer.running_var, c, layer.unbiased * layer.var[c], factor);
  }
}

}  // namespace fusedres::cuda
