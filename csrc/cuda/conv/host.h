// What the three convolution ops share between their arguments and a plan: checks, weights, pointers.
#pragma once

#include <vector>

#include "cuda/common/tensor.h"
#include "cuda/conv/plan.h"

namespace fusedres::cuda {

using Ints = std::vector<int64_t>;

inline const void* pointer(const OptionalTensor& x) { return x.has_value() ? x->data_ptr() : nullptr; }

struct ConvGeometry {
  const Ints &stride, &padding, &dilation;
  int64_t groups;
};

// Throws where the weight and the geometry do not fit an input of x_shape; `x_name` is what the op calls it.
void check_conv(
    const char* op, const char* x_name, const Ints& x_shape, const Tensor& w, const ConvGeometry& g);

// (N, K, P, Q)
Ints conv_output_shape(const Ints& x_shape, const Tensor& w, const ConvGeometry& g);

// Whether our kernels serve the call: fp32 only as TF32, where torch allows that; from compute capability 8.0
// on; fewer than 2^31 pixels, since those are numbered in 32 bits (offsets have 64).
bool serves(
    const Tensor& source, const Ints& x_shape, const Ints& out_shape, const ConvGeometry& g,
    const DeviceFacts& device);

ConvShape conv_shape(const Ints& x_shape, const Tensor& w, const ConvGeometry& g);

// Whether (K, C / groups, R, S) lies in memory as (K, R, S, C / groups): channels_last, or one tap.
bool lies_as_rows(const Tensor& w);

// The weight as the plan's kernel reads it: itself where it lies so already, else packed on the plan's
// stream.
Tensor prepared_weight(const Tensor& w, const ConvPlan& plan, bool gradient, const Target& target);

}  // namespace fusedres::cuda
