// What the programs that run one kernel share: device arrays of exactly their size, and a launch's target.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <vector>

#include "cuda/common/launch.h"

namespace fusedres::cuda {

inline void check_cuda(cudaError_t error, const char* kernel, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s failed: %s\n", kernel, what, cudaGetErrorString(error));
  std::exit(1);
}

}  // namespace fusedres::cuda

template <typename T>
struct DeviceArray {
  T* data = nullptr;
  size_t size;

  explicit DeviceArray(size_t size) : size(size) {
    fusedres::cuda::check_cuda(cudaMalloc(&data, size * sizeof(T)), "program", "allocating");
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) {
    fusedres::cuda::check_cuda(
        cudaMemcpy(data, values.data(), size * sizeof(T), cudaMemcpyHostToDevice), "program", "copying");
  }
  std::vector<T> values() const {
    std::vector<T> host(size);
    fusedres::cuda::check_cuda(cudaDeviceSynchronize(), "program", "the kernel");
    fusedres::cuda::check_cuda(
        cudaMemcpy(host.data(), data, size * sizeof(T), cudaMemcpyDeviceToHost), "program", "copying");
    return host;
  }
};

// An A100 with one processor: a small problem is not split.
inline fusedres::cuda::Target target() { return {nullptr, {80, 1, 163 * 1024, 2048}}; }

// The value -1, 0 or 1 at `index`: sums of a few hundred of them are exact in fp32.
inline float small_value(size_t index) { return static_cast<float>(index * 2654435761u % 4099 % 3) - 1.0f; }

inline int verdict(size_t wrong, size_t of) {
  std::printf("%zu of %zu values are wrong\n", wrong, of);
  return wrong == 0 ? 0 : 3;
}
