// Launching a kernel: on whose stream, on what device, and the error raised from the call that launched.
// No torch header, so that .cu files compile fast.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

namespace fusedres::cuda {

struct DeviceFacts {
  int capability;       // 80 for compute capability 8.0
  int processors;       // streaming multiprocessors
  int shared_bytes;     // shared memory a block may have, when it asks for it
  int threads_at_once;  // resident threads of one processor
};

// Where a launch goes: the caller's current stream, and the device it belongs to.
struct Target {
  cudaStream_t stream;
  DeviceFacts device;
};

// Throws std::runtime_error where `error` is one; `what` says which call of which kernel.
void check_cuda(cudaError_t error, const char* kernel, const char* what);

struct Grid {
  dim3 blocks, threads;
  int shared_bytes = 0;
};

// Runs kernel(params). The error of this launch is thrown here, before anything else can fail in its place.
// An empty grid launches nothing: a kernel writes each output, and there is none to write.
template <typename Params>
void launch(
    const char* name, void (*kernel)(Params), const Grid& grid, const Target& target,
    const std::type_identity_t<Params>& params) {
  constexpr int kWithoutAsking = 48 * 1024;
  if (grid.blocks.x == 0 || grid.blocks.y == 0 || grid.blocks.z == 0) return;
  const void* function = reinterpret_cast<const void*>(kernel);
  if (grid.shared_bytes > kWithoutAsking) {
    check_cuda(
        cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, grid.shared_bytes), name,
        "asking for shared memory");
  }
  void* arguments[] = {const_cast<Params*>(&params)};
  check_cuda(
      cudaLaunchKernel(
          function, grid.blocks, grid.threads, arguments, static_cast<size_t>(grid.shared_bytes),
          target.stream),
      name, "launch");
}

template <typename Int>
constexpr Int ceil_div(Int a, Int b) {
  return (a + b - 1) / b;
}

}  // namespace fusedres::cuda
