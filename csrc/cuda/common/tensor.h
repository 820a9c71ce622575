// Between torch's tensors and the kernels' pointers: checks, allocation, dtypes.
//
// Every check names the argument, the rule and what it got. What an op computes on must be an activation:
// channels_last (N, C, H, W), fp16, bf16 or fp32, on one CUDA device.
#pragma once

#include <torch/csrc/stable/device.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "common/element.h"
#include "cuda/common/device.h"
#include "cuda/common/param.h"

namespace fusedres::cuda {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

// Throws where `x` is not an activation.
void check_activation(const char* op, const char* name, const Tensor& x);

// Throws where `x` is not an activation of the shape, dtype and device of `like`.
void check_like(const char* op, const char* name, const Tensor& x, const Tensor& like);
inline void check_like(const char* op, const char* name, const OptionalTensor& x, const Tensor& like) {
  if (x.has_value()) check_like(op, name, *x, like);
}

void check_channels_last(const char* op, const char* name, const Tensor& x);

// Throws where `x` is not of `shape`.
void check_shape(const char* op, const char* name, const Tensor& x, const std::vector<int64_t>& shape);
void check_dtype(const char* op, const char* name, const Tensor& x, ScalarType dtype);
void check_device(const char* op, const char* name, const Tensor& x, const Tensor& like);

// Dense fp32 of `shape` on the device of `like`: statistics, sums.
void check_floats(
    const char* op, const char* name, const Tensor& x, const std::vector<int64_t>& shape, const Tensor& like);

// "(2, 3, 5, 7)"
std::string shape_text(const Tensor& x);

Tensor empty_nhwc(const Tensor& like, std::vector<int64_t> shape, ScalarType dtype);
inline Tensor empty_as(const Tensor& x) {
  return empty_nhwc(x, {x.size(0), x.size(1), x.size(2), x.size(3)}, x.scalar_type());
}
Tensor empty(const Tensor& like, std::vector<int64_t> shape, ScalarType dtype = ScalarType::Float);
inline Tensor absent(const Tensor& like) { return empty(like, {0}, like.scalar_type()); }

// `bytes` of scratch memory from torch's allocator; its base is aligned to 256 bytes and more.
inline Tensor workspace(const Tensor& like, int64_t bytes) { return empty(like, {bytes}, ScalarType::Byte); }

inline int64_t rows_of(const Tensor& x) { return x.size(0) * x.size(2) * x.size(3); }

template <typename T>
const T* data(const Tensor& x) {
  return static_cast<const T*>(x.data_ptr());
}
template <typename T>
const T* data(const OptionalTensor& x) {
  return x.has_value() ? data<T>(*x) : nullptr;
}
template <typename T>
T* mutable_data(const Tensor& x) {
  return static_cast<T*>(x.data_ptr());
}

// Whether pointers are to 16 bytes (absent ones are), as vector accesses need. torch's own allocations do; a
// slice along N of a map with an odd number of bytes does not, and pointwise kernels then go value by value.
inline bool is_aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }
template <typename... Pointers>
bool are_aligned(Pointers... pointers) {
  return (is_aligned(pointers) && ...);
}

// `x` itself, or a copy of it where it does not start on 16 bytes: what a matrix kernel reads, since copying
// costs less than reading each value nine times one by one.
Tensor aligned(const Tensor& x);

// A per-channel vector of any floating dtype as dense fp32. fp32 vectors, which is what this package
// computes, are read where they are; another dtype is converted by torch on the same stream. An absent one is
// null.
class ChannelVector {
 public:
  ChannelVector(
      const char* op, const char* name, const OptionalTensor& vector, int64_t channels, const Tensor& like);
  const float* get() const { return kept_.has_value() ? data<float>(*kept_) : nullptr; }

 private:
  OptionalTensor kept_;
};

// The same, read by the kernel in its own dtype: for parameters, which a model in bf16 has in bf16.
Param param(
    const char* op, const char* name, const OptionalTensor& vector, int64_t channels, const Tensor& like);

// run(float{}), run(Half{}) or run(BFloat16{}), whichever `x` holds; check_activation lets nothing else pass.
template <typename Run>
auto dispatch_element(const Tensor& x, Run&& run) {
  switch (x.scalar_type()) {
    case ScalarType::Half:
      return run(Half{});
    case ScalarType::BFloat16:
      return run(BFloat16{});
    default:
      return run(float{});
  }
}

}  // namespace fusedres::cuda
