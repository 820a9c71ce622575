#include "cuda/common/tensor.h"

#include <sstream>

namespace fusedres::cuda {
namespace {

std::string text(const std::vector<int64_t>& shape) {
  std::ostringstream out;
  out << '(';
  for (size_t i = 0; i < shape.size(); ++i) out << (i ? ", " : "") << shape[i];
  out << ')';
  return out.str();
}

const char* dtype_name(const Tensor& x) { return torch::headeronly::toString(x.scalar_type()); }

std::string device_name(const Tensor& x) {
  return x.is_cuda() ? "cuda:" + std::to_string(x.get_device_index()) : x.is_cpu() ? "cpu" : "another device";
}

bool is_channels_last(const Tensor& x) {
  int64_t expected = 1;
  for (const int64_t dimension : {1, 3, 2, 0}) {
    // the stride of a dimension of size 1 means nothing
    if (x.size(dimension) != 1 && x.stride(dimension) != expected) return false;
    expected *= x.size(dimension);
  }
  return true;
}

ParamType param_type(const char* op, const char* name, const Tensor& vector) {
  switch (vector.scalar_type()) {
    case ScalarType::Float:
      return ParamType::kFloat;
    case ScalarType::Half:
      return ParamType::kHalf;
    case ScalarType::BFloat16:
      return ParamType::kBFloat16;
    case ScalarType::Double:
      return ParamType::kDouble;
    default:
      STD_TORCH_CHECK(false, op, ": `", name, "` must be floating; got ", dtype_name(vector));
  }
}

}  // namespace

std::string shape_text(const Tensor& x) {
  std::vector<int64_t> shape(x.dim());
  for (int64_t i = 0; i < x.dim(); ++i) shape[i] = x.size(i);
  return text(shape);
}

void check_channels_last(const char* op, const char* name, const Tensor& x) {
  STD_TORCH_CHECK(
      x.numel() == 0 || is_channels_last(x), op, ": `", name, "` must be channels_last; got shape ",
      shape_text(x), " with other strides");
}

void check_activation(const char* op, const char* name, const Tensor& x) {
  STD_TORCH_CHECK(x.is_cuda(), op, ": `", name, "` must be on a CUDA device; got ", device_name(x));
  STD_TORCH_CHECK(
      x.dim() == 4, op, ": `", name, "` must have 4 dimensions (N, C, H, W); got shape ", shape_text(x));
  const ScalarType dtype = x.scalar_type();
  STD_TORCH_CHECK(
      dtype == ScalarType::Half || dtype == ScalarType::BFloat16 || dtype == ScalarType::Float, op, ": `",
      name, "` must be float16, bfloat16 or float32 on the cuda back-end; got ", dtype_name(x));
  check_channels_last(op, name, x);
}

void check_shape(const char* op, const char* name, const Tensor& x, const std::vector<int64_t>& shape) {
  bool same = x.dim() == static_cast<int64_t>(shape.size());
  for (size_t i = 0; same && i < shape.size(); ++i) same = x.size(static_cast<int64_t>(i)) == shape[i];
  STD_TORCH_CHECK(same, op, ": `", name, "` must have shape ", text(shape), "; got ", shape_text(x));
}

void check_dtype(const char* op, const char* name, const Tensor& x, ScalarType dtype) {
  STD_TORCH_CHECK(
      x.scalar_type() == dtype, op, ": `", name, "` must be ", torch::headeronly::toString(dtype), "; got ",
      dtype_name(x));
}

void check_device(const char* op, const char* name, const Tensor& x, const Tensor& like) {
  STD_TORCH_CHECK(
      x.is_cuda() && x.get_device_index() == like.get_device_index(), op, ": `", name, "` must be on ",
      device_name(like), "; got ", device_name(x));
}

void check_like(const char* op, const char* name, const Tensor& x, const Tensor& like) {
  check_activation(op, name, x);
  check_device(op, name, x, like);
  check_dtype(op, name, x, like.scalar_type());
  check_shape(op, name, x, {like.size(0), like.size(1), like.size(2), like.size(3)});
}

void check_floats(
    const char* op, const char* name, const Tensor& x, const std::vector<int64_t>& shape,
    const Tensor& like) {
  check_shape(op, name, x, shape);
  check_dtype(op, name, x, ScalarType::Float);
  check_device(op, name, x, like);
  STD_TORCH_CHECK(x.is_contiguous(), op, ": `", name, "` must be contiguous; got shape ", shape_text(x));
}

Tensor empty_nhwc(const Tensor& like, std::vector<int64_t> shape, ScalarType dtype) {
  return torch::stable::empty(
      shape, dtype, std::nullopt, like.device(), std::nullopt, torch::headeronly::MemoryFormat::ChannelsLast);
}

Tensor empty(const Tensor& like, std::vector<int64_t> shape, ScalarType dtype) {
  return torch::stable::empty(shape, dtype, std::nullopt, like.device());
}

Tensor aligned(const Tensor& x) { return is_aligned(x.data_ptr()) ? x : torch::stable::clone(x); }

Param param(
    const char* op, const char* name, const OptionalTensor& vector, int64_t channels, const Tensor& like) {
  if (!vector.has_value()) return {};
  check_shape(op, name, *vector, {channels});
  check_device(op, name, *vector, like);
  return {vector->data_ptr(), vector->stride(0), param_type(op, name, *vector)};
}

ChannelVector::ChannelVector(
    const char* op, const char* name, const OptionalTensor& vector, int64_t channels, const Tensor& like) {
  const Param given = param(op, name, vector, channels, like);  // throws where the vector is none
  if (!vector.has_value()) return;
  const bool dense = given.stride == 1 || channels <= 1;
  kept_ = given.type == ParamType::kFloat ? *vector : torch::stable::to(*vector, ScalarType::Float);
  if (!dense) kept_ = torch::stable::contiguous(*kept_);
  kept_ = aligned(*kept_);
}

}  // namespace fusedres::cuda
