// Between torch's tensors and the kernels' pointers: checks, allocation, splitting work over threads.
#pragma once

#include <torch/csrc/stable/device.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <optional>
#include <type_traits>
#include <vector>

#include "common/element.h"

namespace fusedres::cpu {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

// Throws where `x` is not a channels_last activation (N, C, H, W) in fp32 or bf16.
void check_activation(const char* op, const char* name, const Tensor& x);

// Throws where `x` is not an activation of the shape and dtype of `like`.
void check_like(const char* op, const char* name, const Tensor& x, const Tensor& like);

Tensor empty_nhwc(const Tensor& like, std::vector<int64_t> shape, ScalarType dtype);
inline Tensor empty_as(const Tensor& x) {
  return empty_nhwc(x, {x.size(0), x.size(1), x.size(2), x.size(3)}, x.scalar_type());
}
Tensor empty(const Tensor& like, std::vector<int64_t> shape, ScalarType dtype = ScalarType::Float);
inline Tensor absent(const Tensor& like) { return empty(like, {0}, like.scalar_type()); }

inline int64_t rows_of(const Tensor& x) { return x.size(0) * x.size(2) * x.size(3); }

// Whether the rows of `out` are better written past the caches: it is larger than they are, so that whoever
// reads it next finds little of it there, and its vectors are aligned.
bool streams(const Tensor& out);

// A per-channel vector of any floating dtype, read as fp32. An absent one is null.
class ChannelVector {
 public:
  ChannelVector(const char* op, const char* name, const OptionalTensor& vector, int64_t channels);
  const float* get() const { return data_; }

 private:
  const float* data_ = nullptr;
  OptionalTensor kept_;
  std::vector<float> converted_;
};

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

// run(float{}) or run(BFloat16{}), whichever `x` holds; check_activation has let nothing else pass.
template <typename Run>
auto dispatch_element(const Tensor& x, Run&& run) {
  return x.scalar_type() == ScalarType::Float ? run(float{}) : run(BFloat16{});
}

// Rows in fixed chunks, whose sums are merged in their order: results do not depend on the threads.
struct Chunks {
  int64_t rows, count;

  // At least 128 KB of fp32, so that a chunk outweighs its merge, and at most 64, for as many threads.
  Chunks(int64_t all_rows, int64_t row_values);
};

// body(begin, end) over [0, count), on torch's threads where the work (in values) is worth waking them.
template <typename Body>
void parallel(int64_t count, int64_t values_each, const Body& body) {
  constexpr int64_t kWorthAThread = 16384;  // values: 10 us at a core's share of the memory bandwidth
  const int64_t grain = values_each > 0 ? (kWorthAThread + values_each - 1) / values_each : count;
  torch::stable::parallel_for(0, count, grain > 0 ? grain : 1, body);
}

}  // namespace fusedres::cpu
