#include "cpu/tensor.h"

#include <algorithm>
#include <sstream>

#include "cpu/pages.h"
#include "cpu/pool.h"

namespace fusedres::cpu {
namespace {

std::string shape_of(const Tensor& x) {
  std::ostringstream text;
  text << '(';
  for (int64_t i = 0; i < x.dim(); ++i) text << (i ? ", " : "") << x.size(i);
  text << ')';
  return text.str();
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

// malloc maps the larger outputs anew each time, and gives the end of its heap back where 128 KB are free:
// both fault the pages of the next forward again.
constexpr int64_t kLeastPooled = 32 << 10;

void give_back(void* data) { output_pool().give_back(data); }

// A tensor that returns `data` to the pool when its storage is gone.
Tensor pooled_nhwc(void* data, const Tensor& like, const std::vector<int64_t>& shape, ScalarType dtype) {
  const int64_t channels = shape[1], row = shape[3] * channels;
  const std::vector<int64_t> strides{shape[2] * row, 1, row, channels};
  try {
    return torch::stable::from_blob(data, shape, strides, like.device(), dtype, give_back);
  } catch (...) {
    give_back(data);
    throw;
  }
}

}  // namespace

void check_activation(const char* op, const char* name, const Tensor& x) {
  STD_TORCH_CHECK(
      x.dim() == 4, op, ": `", name, "` must have 4 dimensions (N, C, H, W); got shape ", shape_of(x));
  STD_TORCH_CHECK(
      x.scalar_type() == ScalarType::Float || x.scalar_type() == ScalarType::BFloat16, op, ": `", name,
      "` must be float32 or bfloat16 on the cpu back-end; got ",
      torch::headeronly::toString(x.scalar_type()));
  STD_TORCH_CHECK(
      x.numel() == 0 || is_channels_last(x), op, ": `", name, "` must be channels_last; got shape ",
      shape_of(x), " with other strides");
}

void check_like(const char* op, const char* name, const Tensor& x, const Tensor& like) {
  check_activation(op, name, x);
  STD_TORCH_CHECK(
      x.scalar_type() == like.scalar_type(), op, ": `", name, "` must be ",
      torch::headeronly::toString(like.scalar_type()), "; got ",
      torch::headeronly::toString(x.scalar_type()));
  for (int64_t i = 0; i < 4; ++i) {
    STD_TORCH_CHECK(
        x.size(i) == like.size(i), op, ": `", name, "` must have shape ", shape_of(like), "; got ",
        shape_of(x));
  }
}

Tensor empty_nhwc(const Tensor& like, std::vector<int64_t> shape, ScalarType dtype) {
  const int64_t element = dtype == ScalarType::Float ? 4 : dtype == ScalarType::BFloat16 ? 2 : 1;
  const int64_t bytes = shape[0] * shape[1] * shape[2] * shape[3] * element;
  if (bytes >= kLeastPooled) {
    if (void* data = output_pool().take(bytes)) return pooled_nhwc(data, like, shape, dtype);
  }
  Tensor x = torch::stable::empty(
      shape, dtype, std::nullopt, like.device(), std::nullopt, torch::headeronly::MemoryFormat::ChannelsLast);
  // Where the pool has no room: malloc maps what exceeds 32 MB anew each time, 12,500 faults for 51 MB, which
  // take longer than any kernel.
  advise_large_pages(x.data_ptr(), bytes);
  return x;
}

Tensor empty(const Tensor& like, std::vector<int64_t> shape, ScalarType dtype) {
  return torch::stable::empty(shape, dtype, std::nullopt, like.device());
}

bool streams(const Tensor& out) {
  constexpr int64_t kLarge = 32 << 20, kLine = 64;
  const int64_t element = out.scalar_type() == ScalarType::Float ? 4 : 2;
  return out.numel() * element >= kLarge && out.size(1) * element % kLine == 0 &&
         reinterpret_cast<uintptr_t>(out.data_ptr()) % kLine == 0;
}

ChannelVector::ChannelVector(const char* op, const char* name, const OptionalTensor& vector, int64_t channels)
    : kept_(vector) {
  if (!vector.has_value()) return;
  STD_TORCH_CHECK(
      vector->dim() == 1 && vector->size(0) == channels, op, ": `", name, "` must have shape (", channels,
      "); got ", shape_of(*vector));
  const int64_t stride = vector->stride(0);
  const ScalarType dtype = vector->scalar_type();
  if (dtype == ScalarType::Float && (stride == 1 || channels == 1)) {
    data_ = data<float>(*vector);
    return;
  }
  converted_.resize(channels);
  for (int64_t c = 0; c < channels; ++c) {
    const int64_t at = c * stride;
    switch (dtype) {
      case ScalarType::Float:
        converted_[c] = data<float>(*vector)[at];
        break;
      case ScalarType::Double:
        converted_[c] = static_cast<float>(data<double>(*vector)[at]);
        break;
      case ScalarType::BFloat16:
        converted_[c] = to_float(data<BFloat16>(*vector)[at]);
        break;
      case ScalarType::Half:
        converted_[c] = to_float(data<Half>(*vector)[at]);
        break;
      default:
        STD_TORCH_CHECK(
            false, op, ": `", name, "` must be floating; got ", torch::headeronly::toString(dtype));
    }
  }
  data_ = converted_.data();
}

Chunks::Chunks(int64_t all_rows, int64_t row_values) {
  constexpr int64_t kLeastValues = 32768, kMost = 64, kGroupRows = 16;
  const int64_t for_size = kLeastValues / std::max<int64_t>(row_values, 1) + 1;
  const int64_t for_count = (all_rows + kMost - 1) / kMost;
  rows = (std::max(for_size, for_count) + kGroupRows - 1) / kGroupRows * kGroupRows;
  count = (all_rows + rows - 1) / rows;
}

}  // namespace fusedres::cpu
