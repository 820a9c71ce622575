#include "cuda/conv/host.h"

#include <algorithm>

#include "cuda/common/library.h"
#include "cuda/conv/weights.h"

namespace fusedres::cuda {
namespace {

constexpr int64_t kMostPixels = (int64_t{1} << 31) - 256;  // a tile may number pixels beyond the last
constexpr int64_t kMostGroups = 65535;                     // of a grid's second dimension
constexpr int kTensorCores = 80;

}  // namespace

bool lies_as_rows(const Tensor& w) {
  const int64_t c = w.size(1), r = w.size(2), s = w.size(3);
  const int64_t expected[] = {r * s * c, 1, s * c, c};
  for (int i = 0; i < 4; ++i) {
    if (w.size(i) != 1 && w.stride(i) != expected[i]) return false;
  }
  return true;
}

void check_conv(
    const char* op, const char* x_name, const Ints& x_shape, const Tensor& w, const ConvGeometry& g) {
  STD_TORCH_CHECK(
      w.dim() == 4, op, ": `w` must have 4 dimensions (K, C / groups, R, S); got shape ", shape_text(w));
  STD_TORCH_CHECK(
      g.groups > 0 && x_shape[1] == w.size(1) * g.groups && w.size(0) % g.groups == 0, op, ": `", x_name,
      "` must have the channels of `w`, ", w.size(1),
      " in each of `groups`, which divides those of the output; got ", x_shape[1], " channels, ", g.groups,
      " groups and `w` of shape ", shape_text(w));
  for (int i = 0; i < 2; ++i) {
    STD_TORCH_CHECK(
        g.stride[i] > 0 && g.dilation[i] > 0 && g.padding[i] >= 0, op,
        ": `stride` and `dilation` must be positive and `padding` must not be negative; got ", g.stride[i],
        ", ", g.dilation[i], " and ", g.padding[i]);
    const int64_t reach = g.dilation[i] * (w.size(2 + i) - 1) + 1;
    STD_TORCH_CHECK(
        x_shape[2 + i] + 2 * g.padding[i] >= reach, op, ": `", x_name, "` must be as large as the filter, ",
        reach, ", after padding; got ", x_shape[2 + i], " and padding ", g.padding[i]);
  }
}

Ints conv_output_shape(const Ints& x_shape, const Tensor& w, const ConvGeometry& g) {
  Ints shape{x_shape[0], w.size(0), 0, 0};
  for (int i = 0; i < 2; ++i) {
    const int64_t reach = g.dilation[i] * (w.size(2 + i) - 1) + 1;
    shape[2 + i] = (x_shape[2 + i] + 2 * g.padding[i] - reach) / g.stride[i] + 1;
  }
  return shape;
}

bool serves(
    const Tensor& source, const Ints& x_shape, const Ints& out_shape, const ConvGeometry& g,
    const DeviceFacts& device) {
  const int64_t pixels =
      std::max(x_shape[0] * x_shape[2] * x_shape[3], out_shape[0] * out_shape[2] * out_shape[3]);
  const int64_t farthest =
      std::max({g.stride[0], g.stride[1], g.dilation[0], g.dilation[1], g.padding[0], g.padding[1]});
  return device.capability >= kTensorCores && pixels <= kMostPixels && g.groups <= kMostGroups &&
         farthest < (1 << 15) && (source.scalar_type() != ScalarType::Float || allow_tf32());
}

ConvShape conv_shape(const Ints& x_shape, const Tensor& w, const ConvGeometry& g) {
  const auto narrow = [](int64_t value) { return static_cast<int>(value); };
  ConvShape shape{};
  shape.n = narrow(x_shape[0]);
  shape.c = narrow(x_shape[1]);
  shape.h = narrow(x_shape[2]);
  shape.w = narrow(x_shape[3]);
  shape.k = narrow(w.size(0));
  shape.r = narrow(w.size(2));
  shape.s = narrow(w.size(3));
  for (int i = 0; i < 2; ++i) {
    shape.stride[i] = narrow(g.stride[i]);
    shape.padding[i] = narrow(g.padding[i]);
    shape.dilation[i] = narrow(g.dilation[i]);
  }
  shape.groups = narrow(g.groups);
  return shape;
}

Tensor prepared_weight(const Tensor& w, const ConvPlan& plan, bool gradient, const Target& target) {
  const ConvParams& p = plan.params;
  // Turned weights are a forward convolution's: rows are the source's channels.
  const int block_rows = plan.turned ? p.depth : p.columns, block_depth = plan.turned ? p.columns : p.depth;
  const bool merged = p.depth != plan.group_depth && !p.flat, as_forward = plan.turned || !gradient;
  if (as_forward && !merged && !p.flat && p.weight_depth == block_depth && lies_as_rows(w) &&
      is_aligned(w.data_ptr()))
    return w;
  const int rows = block_rows * plan.groups;
  Tensor packed = empty(w, {rows, p.taps, p.weight_depth}, w.scalar_type());
  PackWeightsParams pack{};
  pack.weight = w.data_ptr();
  pack.stride_k = w.stride(0);
  pack.stride_c = w.stride(1);
  pack.stride_r = w.stride(2);
  pack.stride_s = w.stride(3);
  pack.packed = packed.data_ptr();
  pack.rows = rows;
  pack.taps = p.taps;
  pack.taps_w = static_cast<int>(w.size(3));
  pack.packed_depth = p.weight_depth;
  pack.block_rows = block_rows;
  pack.group_rows = plan.turned ? plan.group_depth : plan.group_rows;
  pack.block_depth = block_depth;
  pack.group_depth = plan.turned ? plan.group_rows : plan.group_depth;
  if (p.flat) pack.flat_channels = plan.group_depth;
  pack.gradient = !as_forward;
  dispatch_element(w, [&](auto element) { launch_pack_weights<decltype(element)>(pack, target); });
  return packed;
}

}  // namespace fusedres::cuda
