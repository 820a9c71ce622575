// fusedres_cuda::bn_act_bwd_reduce
#include "cuda/bn_act_bwd_reduce.h"

#include <tuple>

#include "cuda/bwd_sums.h"
#include "cuda/common/tensor.h"

namespace fusedres::cuda {
namespace {

constexpr const char* kOp = "bn_act_bwd_reduce";

void check_groups(
    const OptionalTensor& y, const OptionalTensor& s, const OptionalTensor& t, const OptionalTensor& mean,
    const OptionalTensor& invstd, const OptionalTensor& y2, const OptionalTensor& mean2,
    const OptionalTensor& invstd2) {
  STD_TORCH_CHECK(
      s.has_value() == t.has_value() && (y.has_value() || !s.has_value()), kOp,
      ": `s` and `t` go together and with `y`; got only some");
  STD_TORCH_CHECK(
      mean.has_value() == invstd.has_value() && (y.has_value() || !mean.has_value()), kOp,
      ": `mean` and `invstd` go together and with `y`; got only some");
  STD_TORCH_CHECK(
      y2.has_value() == mean2.has_value() && y2.has_value() == invstd2.has_value(), kOp,
      ": `y2`, `mean2` and `invstd2` go together; got only some");
}

std::tuple<Tensor, Tensor, Tensor> bn_act_bwd_reduce(
    const Tensor& dout, const OptionalTensor& out, const OptionalTensor& y, const OptionalTensor& s,
    const OptionalTensor& t, const OptionalTensor& mean, const OptionalTensor& invstd,
    const OptionalTensor& y2, const OptionalTensor& mean2, const OptionalTensor& invstd2) {
  check_activation(kOp, "dout", dout);
  check_like(kOp, "out", out, dout);
  check_like(kOp, "y", y, dout);
  check_like(kOp, "y2", y2, dout);
  check_groups(y, s, t, mean, invstd, y2, mean2, invstd2);
  const OnDevice device(kOp, dout);
  const int64_t rows = rows_of(dout), channels = dout.size(1);
  const ChannelVector vs(kOp, "s", s, channels, dout), vt(kOp, "t", t, channels, dout);
  const ChannelVector vmean(kOp, "mean", mean, channels, dout),
      vinvstd(kOp, "invstd", invstd, channels, dout);
  const ChannelVector vmean2(kOp, "mean2", mean2, channels, dout);
  const ChannelVector vinvstd2(kOp, "invstd2", invstd2, channels, dout);

  const Mask mask = out.has_value() ? Mask::kOut : s.has_value() ? Mask::kAffine : Mask::kNone;
  const int dots = y2.has_value() ? 2 : mean.has_value() ? 1 : 0, kinds = 1 + dots;
  Tensor dz = mask == Mask::kNone ? absent(dout) : empty_as(dout);
  Tensor sums = empty(dout, {2, channels}),
         sums2 = y2.has_value() ? empty(dout, {2, channels}) : absent(sums);
  dispatch_element(dout, [&](auto element) {
    using T = decltype(element);
    BnActBwdReduceParams<T> k{data<T>(dout), data<T>(out), data<T>(y),   data<T>(y2),         vs.get(),
                              vt.get(),      vmean.get(),  vmean2.get(), mutable_data<T>(dz), nullptr,
                              rows,          channels};
    // The kernel's first branch has moments wherever its second has: lent, where there are none, and not
    // asked for.
    if (dots == 2 && k.mean == nullptr) k.mean = k.mean2;
    if (dots == 2 && k.y == nullptr) k.y = k.y2;
    const bool aligned = are_aligned(k.dout, k.out, k.y, k.y2, k.s, k.t, k.mean, k.mean2);
    const Grid grid = bn_act_bwd_reduce_grid<T>(rows, channels, aligned, device.target());
    const int64_t blocks = grid.blocks.x;
    const Tensor partial = empty(dout, {blocks, kinds, channels});
    k.partial = mutable_data<float>(partial);
    launch_bn_act_bwd_reduce(k, mask, dots, grid, aligned, device.target());
    launch_merge_sums(
        {k.partial, vinvstd.get(), vinvstd2.get(), mutable_data<float>(sums),
         y2.has_value() ? mutable_data<float>(sums2) : nullptr, blocks, channels, kinds},
        device.target());
  });
  return {dz, sums, sums2};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fusedres_cuda, CUDA, m) {
  m.impl("bn_act_bwd_reduce", TORCH_BOX(&bn_act_bwd_reduce));
}

}  // namespace fusedres::cuda
