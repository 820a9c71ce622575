// What the engine's ops share: checks of packed weights, affines as the kernels read them, torch's threads.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "cpu/conv/packed.h"
#include "cpu/conv/team.h"
#include "cpu/tensor.h"

namespace fusedres::conv {

using cpu::OptionalTensor;
using cpu::ScalarType;
using torch::stable::Tensor;

// torch's own pool, and as many threads as torch.set_num_threads allows.
class TorchTeam : public Team {
 public:
  TorchTeam() : Team(torch::stable::get_num_threads()) {}

 protected:
  void fork(void (*enter)(void*, int64_t), void* context) override;
};

[[noreturn]] void fail(const std::string& message);
// "(1, 2)", for messages.
std::string listed(const std::vector<int64_t>& values);

// Whether this process can run the algorithm of that number.
bool is_runnable(int64_t algorithm);

// Throws where it cannot, or where `w` is no weight, (K, C / groups, R, S), in the algorithm's dtype.
Algorithm checked_algorithm(const char* op, int64_t algorithm, const Tensor& w);

// How a convolution walks over its input, as its op was told; two numbers each.
struct Geometry {
  const std::vector<int64_t>& stride;
  const std::vector<int64_t>& padding;
  const std::vector<int64_t>& dilation;
  int64_t groups;
};
inline const std::vector<int64_t> kNoDilation{1, 1};

// The filter of weights of these sizes, (K, C / groups, R, S); throws where a number does not fit.
Filter checked_filter(const char* op, const std::vector<int64_t>& w_shape, const Geometry& geometry);

using WeightStrides = std::array<int64_t, 4>;  // in elements
WeightStrides strides_of(const Tensor& w);
std::vector<int64_t> shape_of(const Tensor& w);

// Weights in the form of `header`, packed by all threads.
void pack_into(const PackedHeader& header, const void* weights, const WeightStrides& strides, void* packed);

// Throws where `packed` is not what conv_pack made, for a CPU like this one.
const PackedHeader& checked_header(const char* op, const char* name, const Tensor& packed);

// Throws where `x` is no activation in the dtype that the weights were packed in.
void check_input(const char* op, const PackedHeader& header, const Tensor& x);
// Throws where a filter is larger than the padded map it meets.
void check_pixels(const char* op, int64_t height, int64_t width);
void check_channels(const char* op, const char* name, const PackedHeader& header, int64_t channels);

// A vector of `channels` values (or so many times `absent`) with the last panel filled up, so that kernels
// read whole vectors: the tensor's own memory where nothing is to be filled.
class PaddedVector {
 public:
  PaddedVector(
      const char* op, const char* name, const OptionalTensor& vector, int64_t channels, float absent);
  const float* get() const { return padded_.empty() ? own_.get() : padded_.data(); }

 private:
  cpu::ChannelVector own_;
  std::vector<float> padded_;
};

class PaddedAffine {
 public:
  PaddedAffine(const char* op, const OptionalTensor& scale, const OptionalTensor& shift, int64_t channels)
      : scale_(op, "scale", scale, channels, 1.0f), shift_(op, "shift", shift, channels, 0.0f) {}
  const float* scale() const { return scale_.get(); }
  const float* shift() const { return shift_.get(); }

 private:
  PaddedVector scale_, shift_;
};

Map map_of(const Tensor& x);
Tensor new_output(const Tensor& x, int64_t channels, int64_t height, int64_t width);

}  // namespace fusedres::conv
