// The device of a call: made current, checked to have kernels in this build, its facts cached.
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/tensor.h>

#include "cuda/common/launch.h"

namespace fusedres::cuda {

// For the length of an op: `like`'s device is current, and launches go to the caller's current stream there.
// Throws where this build has no kernels for the device.
class OnDevice {
 public:
  OnDevice(const char* op, const torch::stable::Tensor& like);

  const Target& target() const { return target_; }
  const DeviceFacts& facts() const { return target_.device; }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  Target target_;
};

}  // namespace fusedres::cuda
