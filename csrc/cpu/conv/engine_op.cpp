#include "cpu/conv/engine_op.h"

#include <algorithm>
#include <stdexcept>

#include "cpu/conv/support.h"

namespace fusedres::conv {
namespace {

void check_pair(const char* op, const char* name, const std::vector<int64_t>& values, int64_t least) {
  if (values.size() != 2 || std::min(values[0], values[1]) < least)
    fail(
        std::string(op) + ": `" + name + "` must be two numbers of " + std::to_string(least) +
        " or more; got " + listed(values));
}

}  // namespace

std::string listed(const std::vector<int64_t>& values) {
  std::string text = "(";
  for (size_t i = 0; i < values.size(); ++i) text += (i ? ", " : "") + std::to_string(values[i]);
  return text + ")";
}

void TorchTeam::fork(void (*enter)(void*, int64_t), void* context) {
  torch::stable::parallel_for(0, size, 1, [&](int64_t begin, int64_t end) {
    for (int64_t thread = begin; thread < end; ++thread) enter(context, thread);
  });
}

void fail(const std::string& message) { throw std::runtime_error(message); }

bool is_runnable(int64_t algorithm) {
  return algorithm >= 0 && algorithm < kAlgorithms && can_run(static_cast<Algorithm>(algorithm));
}

Algorithm checked_algorithm(const char* op, int64_t algorithm, const Tensor& w) {
  if (!is_runnable(algorithm))
    fail(std::string(op) + ": this process cannot run algorithm " + std::to_string(algorithm));
  const auto chosen = static_cast<Algorithm>(algorithm);
  const bool bf16 = data_type(chosen) == DataType::kBFloat16;
  if (w.dim() != 4 || w.scalar_type() != (bf16 ? ScalarType::BFloat16 : ScalarType::Float))
    fail(std::string(op) + ": `w` must have 4 dimensions (K, C / groups, R, S) and the algorithm's dtype");
  if (w.size(1) < 1) fail(std::string(op) + ": `w` must have input channels; got none");
  return chosen;
}

Filter checked_filter(const char* op, const std::vector<int64_t>& w_shape, const Geometry& geometry) {
  const auto& [stride, padding, dilation, groups] = geometry;
  check_pair(op, "stride", stride, 1);
  check_pair(op, "padding", padding, 0);
  check_pair(op, "dilation", dilation, 1);
  if (w_shape.size() != 4 || w_shape[0] < 0 || w_shape[1] < 0 || w_shape[2] < 1 || w_shape[3] < 1)
    fail(
        std::string(op) + ": the weight must be (K, C / groups, R, S) with a tap at least; got " +
        listed(w_shape));
  if (groups < 1 || w_shape[0] % groups != 0)
    fail(
        std::string(op) + ": `groups` must divide `w`'s " + std::to_string(w_shape[0]) + " filters; got " +
        std::to_string(groups));
  return {w_shape[0], w_shape[1] * groups, w_shape[2],  w_shape[3],  stride[0], stride[1],
          padding[0], padding[1],          dilation[0], dilation[1], groups};
}

std::vector<int64_t> shape_of(const Tensor& w) { return {w.size(0), w.size(1), w.size(2), w.size(3)}; }

WeightStrides strides_of(const Tensor& w) { return {w.stride(0), w.stride(1), w.stride(2), w.stride(3)}; }

void pack_into(const PackedHeader& header, const void* weights, const WeightStrides& strides, void* packed) {
  write_header(header, packed);
  torch::stable::parallel_for(0, header.filter.panels(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t panel = begin; panel < end; ++panel)
      pack_panel(header, weights, strides.data(), panel, packed);
  });
}

const PackedHeader& checked_header(const char* op, const char* name, const Tensor& packed) {
  if (packed.scalar_type() != ScalarType::Byte || packed.numel() < kPackedDataOffset)
    fail(std::string(op) + ": `" + name + "` must be a uint8 tensor made by conv_pack");
  const PackedHeader& header = packed_header(packed.data_ptr());
  if (header.magic != PackedHeader::kMagic || header.bytes != packed.numel())
    fail(
        std::string(op) + ": `" + name + "` must be a tensor made by conv_pack, unchanged; got " +
        std::to_string(packed.numel()) + " other bytes");
  if (!can_run(static_cast<Algorithm>(header.algorithm)) || header.pass != tiles_of(header).pass)
    fail(
        std::string(op) + ": `" + name +
        "` was packed for an instruction set that this process does not use");
  return header;
}

void check_input(const char* op, const PackedHeader& header, const Tensor& x) {
  cpu::check_activation(op, "x", x);
  const bool bf16 = data_type(static_cast<Algorithm>(header.algorithm)) == DataType::kBFloat16;
  if ((x.scalar_type() == ScalarType::BFloat16) != bf16)
    fail(std::string(op) + ": `x` must have the dtype that the weights were packed in");
}

void check_pixels(const char* op, int64_t height, int64_t width) {
  if (height < 1 || width < 1)
    fail(
        std::string(op) + ": a convolution's output must have a pixel at least; got " +
        std::to_string(height) + " x " + std::to_string(width));
}

void check_channels(const char* op, const char* name, const PackedHeader& header, int64_t channels) {
  if (header.filter.in_channels != channels)
    fail(
        std::string(op) + ": `" + name + "` was packed for " + std::to_string(header.filter.in_channels) +
        " input channels; got " + std::to_string(channels));
}

PaddedVector::PaddedVector(
    const char* op, const char* name, const OptionalTensor& vector, int64_t channels, float absent)
    : own_(op, name, vector, channels) {
  if (own_.get() != nullptr && channels % kPanel == 0) return;
  padded_.assign(round_up(channels, kPanel), 0.0f);
  if (own_.get() != nullptr) {
    std::copy_n(own_.get(), channels, padded_.begin());
  } else {
    std::fill_n(padded_.begin(), channels, absent);
  }
}

Map map_of(const Tensor& x) {
  const int64_t element = x.scalar_type() == ScalarType::Float ? 4 : 2;
  return dense_map(x.data_ptr(), x.size(0), x.size(2), x.size(3), x.size(1), element);
}

Tensor new_output(const Tensor& x, int64_t channels, int64_t height, int64_t width) {
  return cpu::empty_nhwc(x, {x.size(0), channels, height, width}, x.scalar_type());
}

}  // namespace fusedres::conv
