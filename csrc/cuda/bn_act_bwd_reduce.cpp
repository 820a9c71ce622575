// fusedres_cuda::bn_act_bwd_reduce
#include "cuda/bn_act_bwd_reduce.h"

#include <tuple>

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
  const int dots = y2.has_value() ? 2 : mean.has_value() ? 1 : 0;
  Tensor dz = mask == Mask::kNone ? absent(dout) : empty_as(dout);
  return dispatch_element(dout, [&](auto element) {
    using T = decltype(element);
    BnActBwdReduceParams<T> k{};
    k.dout = data<T>(dout), k.out = data<T>(out), k.y = data<T>(y), k.y2 = data<T>(y2);
    k.s = vs.get(), k.t = vt.get(), k.mean = vmean.get(), k.mean2 = vmean2.get();
    k.invstd = vinvstd.get(), k.invstd2 = vinvstd2.get();
    k.dz = mutable_data<T>(dz);
    k.rows = rows, k.channels = channels;
    // The kernel's first branch has moments wherever its second has: lent, where there are none, and not
    // asked for.
    if (dots == 2 && k.mean == nullptr) k.mean = k.mean2;
    if (dots == 2 && k.y == nullptr) k.y = k.y2;
    const bool aligned = are_aligned(k.dout, k.out, k.y, k.y2, k.s, k.t, k.mean, k.mean2);
    const Grid grid = bn_act_bwd_reduce_grid<T>(rows, channels, aligned, device.target());
    const int64_t parts = grid.blocks.x;
    Tensor sums = empty(dout, {2 * parts, channels});
    Tensor sums2 = y2.has_value() ? empty(dout, {2 * parts, channels}) : absent(sums);
    k.sums = mutable_data<float>(sums), k.sums2 = mutable_data<float>(sums2);
    launch_bn_act_bwd_reduce(k, mask, dots, grid, aligned, device.target());
    return std::tuple(dz, sums, sums2);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fusedres_cuda, CUDA, m) {
  m.impl("bn_act_bwd_reduce", TORCH_BOX(&bn_act_bwd_reduce));
}

}  // namespace fusedres::cuda
