// fusedres_cuda::conv_stats
#include "cuda/conv_stats.h"

#include <tuple>

#include "cuda/common/library.h"
#include "cuda/conv/host.h"

namespace fusedres::cuda {
namespace {

constexpr const char* kOp = "conv_stats";

std::tuple<Tensor, Tensor, Tensor, Tensor> conv_stats(
    const Tensor& x, const Tensor& w, const OptionalTensor& in_scale, const OptionalTensor& in_shift,
    Ints stride, Ints padding, Ints dilation, int64_t groups) {
  check_activation(kOp, "x", x);
  check_dtype(kOp, "w", w, x.scalar_type());
  check_device(kOp, "w", w, x);
  STD_TORCH_CHECK(
      in_scale.has_value() == in_shift.has_value(), kOp,
      ": `in_scale` and `in_shift` go together; got only one");
  const ConvGeometry g{stride, padding, dilation, groups};
  const Ints x_shape{x.size(0), x.size(1), x.size(2), x.size(3)};
  check_conv(kOp, "x", x_shape, w, g);
  const Ints y_shape = conv_output_shape(x_shape, w, g);
  const OnDevice device(kOp, x);
  if (!serves(x, x_shape, y_shape, g, device.facts())) {
    return call_library<Tensor, Tensor, Tensor, Tensor>(
        kOp, x, w, in_scale, in_shift, stride, padding, dilation, groups);
  }
  const ChannelVector vscale(kOp, "in_scale", in_scale, x.size(1), x);
  const ChannelVector vshift(kOp, "in_shift", in_shift, x.size(1), x);
  Tensor y = empty_nhwc(x, y_shape, x.scalar_type());
  const Tensor source = aligned(x);
  ConvPlan plan = plan_forward(
      conv_shape(x_shape, w, g), {static_cast<int>(x.element_size()), 1, in_scale.has_value()},
      device.facts());
  const int64_t channels = w.size(0);
  Tensor count = empty(x, {plan.tiles}), mean = empty(x, {plan.tiles, channels}),
         m2 = empty(x, {plan.tiles, channels});
  if (y.numel() == 0) return {y, count, mean, m2};
  const Tensor weight = prepared_weight(w, plan, false, device.target());
  const Tensor partial = workspace(x, plan.partial_bytes());
  ConvParams& p = plan.params;
  p.source = source.data_ptr();
  p.weight = weight.data_ptr();
  p.out = y.data_ptr();
  p.partial = mutable_data<float>(partial);
  p.prologue = {vscale.get(), vshift.get(), nullptr, nullptr};
  p.moments = {mutable_data<float>(count), mutable_data<float>(mean), mutable_data<float>(m2)};
  dispatch_element(x, [&](auto element) { launch_conv_stats<decltype(element)>(plan, device.target()); });
  return {y, count, mean, m2};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fusedres_cuda, CUDA, m) { m.impl("conv_stats", TORCH_BOX(&conv_stats)); }

}  // namespace fusedres::cuda
