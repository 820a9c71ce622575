#pragma once

#include "cuda/bn_update_running.h"

namespace fusedres::cuda {

constexpr int kRunningThreads = 512;

__device__ __forceinline__ void blend(const Param& running, int64_t channel, double batch, double factor) {
  running.set(channel, (1.0 - factor) * running.as_double(channel) + factor * batch);
}

// One block: the factor hangs on a count that is read by all before one writes it.
__global__ void __launch_bounds__(kRunningThreads) bn_update_running_kernel(const BnUpdateRunningParams k) {
  double factor = k.momentum;
  if (k.batches != nullptr) {
    const int64_t batches = *k.batches + 1;
    if (k.cumulative) factor = 1.0 / static_cast<double>(batches);
    __syncthreads();
    if (threadIdx.x == 0) *k.batches = batches;
  }
  if (k.empty) return;
  for (int64_t c = threadIdx.x; c < k.channels; c += kRunningThreads) {
    blend(k.running_mean, c, k.mean[c], factor);
    blend(k.running_var, c, k.unbiased * k.var[c], factor);
  }
}

}  // namespace fusedres::cuda
