// fusedres_cuda::conv_dgrad
#include "cuda/conv_dgrad.h"

#include <tuple>
#include <vector>

#include "cuda/common/library.h"
#include "cuda/conv/host.h"

namespace fusedres::cuda {
namespace {

constexpr const char* kOp = "conv_dgrad";

OptionalTensor aligned_or_absent(const OptionalTensor& x) {
  return x.has_value() ? OptionalTensor(aligned(*x)) : x;
}

void check_pairs(
    const OptionalTensor& y, const OptionalTensor& p, const OptionalTensor& q, const OptionalTensor& r,
    const OptionalTensor& prev_y, const OptionalTensor& prev_s, const OptionalTensor& prev_t,
    const OptionalTensor& prev_mean, const OptionalTensor& prev_invstd) {
  STD_TORCH_CHECK(
      y.has_value() == q.has_value() && q.has_value() == r.has_value() && (p.has_value() || !q.has_value()),
      kOp, ": `y`, `q` and `r` go together, with `p`; got only some");
  STD_TORCH_CHECK(
      prev_s.has_value() == prev_t.has_value() && (prev_y.has_value() || !prev_s.has_value()), kOp,
      ": `prev_s` and `prev_t` go together, with `prev_y`; got only some");
  STD_TORCH_CHECK(
      prev_mean.has_value() == prev_invstd.has_value() && (prev_y.has_value() || !prev_mean.has_value()), kOp,
      ": `prev_mean` and `prev_invstd` go together, with `prev_y`; got only some");
}

std::tuple<Tensor, Tensor> conv_dgrad(
    const Tensor& dz, const Tensor& w, const OptionalTensor& y, const OptionalTensor& p,
    const OptionalTensor& q, const OptionalTensor& r, const OptionalTensor& add, const OptionalTensor& prev_y,
    const OptionalTensor& prev_s, const OptionalTensor& prev_t, const OptionalTensor& prev_mean,
    const OptionalTensor& prev_invstd, Ints x_shape, Ints stride, Ints padding, Ints dilation,
    int64_t groups) {
  check_activation(kOp, "dz", dz);
  check_dtype(kOp, "w", w, dz.scalar_type());
  check_device(kOp, "w", w, dz);
  check_like(kOp, "y", y, dz);
  check_pairs(y, p, q, r, prev_y, prev_s, prev_t, prev_mean, prev_invstd);
  const ConvGeometry g{stride, padding, dilation, groups};
  check_conv(kOp, "x_shape", x_shape, w, g);
  check_shape(kOp, "dz", dz, conv_output_shape(x_shape, w, g));
  const OnDevice device(kOp, dz);
  Tensor dx = empty_nhwc(dz, x_shape, dz.scalar_type());
  check_like(kOp, "add", add, dx);
  check_like(kOp, "prev_y", prev_y, dx);
  const int64_t channels = x_shape[1], outputs = w.size(0);
  if (!serves(dz, x_shape, {dz.size(0), outputs, dz.size(2), dz.size(3)}, g, device.facts())) {
    return call_library<Tensor, Tensor>(
        kOp, dz, w, y, p, q, r, add, prev_y, prev_s, prev_t, prev_mean, prev_invstd, x_shape, stride, padding,
        dilation, groups);
  }
  const ChannelVector vp(kOp, "p", p, outputs, dz), vq(kOp, "q", q, outputs, dz),
      vr(kOp, "r", r, outputs, dz);
  const ChannelVector vs(kOp, "prev_s", prev_s, channels, dz), vt(kOp, "prev_t", prev_t, channels, dz);
  const ChannelVector vmean(kOp, "prev_mean", prev_mean, channels, dz);
  const ChannelVector vinvstd(kOp, "prev_invstd", prev_invstd, channels, dz);
  const Tensor source = aligned(dz);
  const OptionalTensor other = aligned_or_absent(y), more = aligned_or_absent(add),
                       mask = aligned_or_absent(prev_y);

  // More than kMaxClasses classes of pixels, at strides beyond 2, are several launches.
  const ConvShape shape = conv_shape(x_shape, w, g);
  std::vector<ConvPlan> plans;
  int64_t tiles = 0, partial_bytes = 0;
  for (int first = 0; first < gradient_classes(shape); first += kMaxClasses) {
    plans.push_back(plan_gradient(
        shape, first, {static_cast<int>(dz.element_size()), p.has_value() ? 2 : 1, p.has_value()},
        device.facts()));
    tiles += plans.back().tiles;
    partial_bytes = std::max(partial_bytes, plans.back().partial_bytes());
  }
  Tensor sums = prev_y.has_value() ? empty(dz, {2 * tiles, channels}) : empty(dz, {0});
  if (dx.numel() != 0) {
    const Tensor weight = prepared_weight(w, plans[0], true, device.target());
    const Tensor partial = workspace(dz, partial_bytes);
    float* next_sums = mutable_data<float>(sums);
    for (ConvPlan& plan : plans) {
      ConvParams& k = plan.params;
      k.source = source.data_ptr();
      k.weight = weight.data_ptr();
      k.add = pointer(more);
      k.out = dx.data_ptr();
      k.partial = mutable_data<float>(partial);
      k.prologue = {vp.get(), vr.get(), vq.get(), pointer(other)};
      k.mask = {pointer(mask), vs.get(), vt.get(), vmean.get(), vinvstd.get(), next_sums};
      dispatch_element(
          dz, [&](auto element) { launch_conv_dgrad<decltype(element)>(plan, device.target()); });
      next_sums += plan.tiles * 2 * channels;
    }
  }
  return {dx, sums};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fusedres_cuda, CUDA, m) { m.impl("conv_dgrad", TORCH_BOX(&conv_dgrad)); }

}  // namespace fusedres::cuda
