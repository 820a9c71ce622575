// fusedres_cuda::conv_affine_act
#include "cuda/conv_affine_act.h"

#include "cuda/common/library.h"
#include "cuda/conv/host.h"

namespace fusedres::cuda {
namespace {

constexpr const char* kOp = "conv_affine_act";

Tensor conv_affine_act(
    const Tensor& x, const Tensor& w, const OptionalTensor& scale, const OptionalTensor& shift,
    const OptionalTensor& residual, bool relu, Ints stride, Ints padding, Ints dilation, int64_t groups) {
  check_activation(kOp, "x", x);
  check_dtype(kOp, "w", w, x.scalar_type());
  check_device(kOp, "w", w, x);
  const ConvGeometry g{stride, padding, dilation, groups};
  const Ints x_shape{x.size(0), x.size(1), x.size(2), x.size(3)};
  check_conv(kOp, "x", x_shape, w, g);
  const Ints out_shape = conv_output_shape(x_shape, w, g);
  const OnDevice device(kOp, x);
  Tensor out = empty_nhwc(x, out_shape, x.scalar_type());
  check_like(kOp, "residual", residual, out);
  if (!serves(x, x_shape, out_shape, g, device.facts())) {
    return std::get<0>(
        call_library<Tensor>(kOp, x, w, scale, shift, residual, relu, stride, padding, dilation, groups));
  }
  const ChannelVector vscale(kOp, "scale", scale, w.size(0), x), vshift(kOp, "shift", shift, w.size(0), x);
  if (out.numel() == 0) return out;
  const Tensor source = aligned(x);
  const OptionalTensor add = residual.has_value() ? OptionalTensor(aligned(*residual)) : residual;
  ConvPlan plan =
      plan_forward(conv_shape(x_shape, w, g), {static_cast<int>(x.element_size()), 1, false}, device.facts());
  const Tensor weight = prepared_weight(w, plan, false, device.target());
  const Tensor partial = workspace(x, plan.partial_bytes());
  ConvParams& p = plan.params;
  p.source = source.data_ptr();
  p.weight = weight.data_ptr();
  p.add = pointer(add);
  p.out = out.data_ptr();
  p.partial = mutable_data<float>(partial);
  p.affine = {vscale.get(), vshift.get(), relu};
  dispatch_element(
      x, [&](auto element) { launch_conv_affine_act<decltype(element)>(plan, device.target()); });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fusedres_cuda, CUDA, m) { m.impl("conv_affine_act", TORCH_BOX(&conv_affine_act)); }

}  // namespace fusedres::cuda
