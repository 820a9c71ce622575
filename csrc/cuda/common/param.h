// A per-channel parameter of any floating dtype and stride, read as fp32 on the device.
#pragma once

#include <cstdint>

#include "common/element.h"

namespace fusedres::cuda {

enum class ParamType : int { kFloat, kHalf, kBFloat16, kDouble };

struct Param {
  void* data = nullptr;  // null where the parameter is absent
  int64_t stride = 1;
  ParamType type = ParamType::kFloat;

#if defined(__CUDACC__)
  __device__ bool present() const { return data != nullptr; }

  __device__ double as_double(int64_t channel) const {
    return type == ParamType::kDouble ? static_cast<const double*>(data)[channel * stride] : (*this)[channel];
  }

  __device__ float operator[](int64_t channel) const {
    const int64_t at = channel * stride;
    switch (type) {
      case ParamType::kHalf:
        return to_float(static_cast<const Half*>(data)[at]);
      case ParamType::kBFloat16:
        return to_float(static_cast<const BFloat16*>(data)[at]);
      case ParamType::kDouble:
        return static_cast<float>(static_cast<const double*>(data)[at]);
      default:
        return static_cast<const float*>(data)[at];
    }
  }

  // Rounded once, but for the 16-bit types, which are rounded from fp32.
  __device__ void set(int64_t channel, double value) const {
    const int64_t at = channel * stride;
    const float single = static_cast<float>(value);
    switch (type) {
      case ParamType::kHalf:
        static_cast<Half*>(data)[at] = from_float<Half>(single);
        break;
      case ParamType::kBFloat16:
        static_cast<BFloat16*>(data)[at] = from_float<BFloat16>(single);
        break;
      case ParamType::kDouble:
        static_cast<double*>(data)[at] = value;
        break;
      default:
        static_cast<float*>(data)[at] = single;
    }
  }
#endif
};

}  // namespace fusedres::cuda
