#include "cuda/common/device.h"

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/headeronly/util/Exception.h>

#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>

#include "cuda/common/probe.h"

namespace fusedres::cuda {
namespace {

int attribute(cudaDeviceAttr name, int device) {
  int value = 0;
  check_cuda(cudaDeviceGetAttribute(&value, name, device), "device", "asking for its attributes");
  return value;
}

DeviceFacts facts_of(int device) {
  const int major = attribute(cudaDevAttrComputeCapabilityMajor, device);
  const int minor = attribute(cudaDevAttrComputeCapabilityMinor, device);
  return {
      10 * major + minor, attribute(cudaDevAttrMultiProcessorCount, device),
      attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
      attribute(cudaDevAttrMaxThreadsPerMultiProcessor, device)};
}

// The device is current.
DeviceFacts checked_facts(const char* op, int device) {
  static std::mutex mutex;
  static std::map<int, DeviceFacts> known;
  const std::lock_guard<std::mutex> lock(mutex);
  if (const auto found = known.find(device); found != known.end()) return found->second;
  const DeviceFacts facts = facts_of(device);
  const cudaError_t error = probe();
  STD_TORCH_CHECK(
      error != cudaErrorNoKernelImageForDevice && error != cudaErrorInvalidDeviceFunction, op,
      ": the build has no kernels for compute capability ", facts.capability / 10, ".", facts.capability % 10,
      " of cuda:", device, "; it was built for ", FUSEDRES_CUDA_ARCHS,
      " (build again with FUSEDRES_CUDA_ARCHS naming that capability)");
  check_cuda(error, op, "asking for its kernels");
  known.emplace(device, facts);
  return facts;
}

cudaStream_t current_stream(int device) {
  void* stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
  return static_cast<cudaStream_t>(stream);
}

}  // namespace

OnDevice::OnDevice(const char* op, const torch::stable::Tensor& like)
    : guard_(like.get_device_index()),
      target_{current_stream(like.get_device_index()), checked_facts(op, like.get_device_index())} {}

void check_cuda(cudaError_t error, const char* kernel, const char* what) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // or the next call of this thread would report it again
  throw std::runtime_error(
      std::string(kernel) + ": " + what + " failed: " + cudaGetErrorName(error) + ", " +
      cudaGetErrorString(error));
}

}  // namespace fusedres::cuda
