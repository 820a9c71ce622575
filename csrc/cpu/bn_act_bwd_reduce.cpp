// fusedres_cpu::bn_act_bwd_reduce, ::bn_bwd_finalize
#include <algorithm>
#include <tuple>

#include "cpu/bwd_sums.h"
#include "cpu/kernels/params.h"

namespace fusedres::cpu {
namespace {

std::tuple<Tensor, Tensor, Tensor> bn_act_bwd_reduce(
    const Tensor& dout, const OptionalTensor& out, const OptionalTensor& y, const OptionalTensor& s,
    const OptionalTensor& t, const OptionalTensor& mean, const OptionalTensor& invstd,
    const OptionalTensor& y2, const OptionalTensor& mean2, const OptionalTensor& invstd2) {
  constexpr const char* op = "bn_act_bwd_reduce";
  check_activation(op, "dout", dout);
  if (out.has_value()) check_like(op, "out", *out, dout);
  if (y.has_value()) check_like(op, "y", *y, dout);
  if (y2.has_value()) check_like(op, "y2", *y2, dout);
  STD_TORCH_CHECK(
      s.has_value() == t.has_value() && (y.has_value() || !s.has_value()), op,
      ": `s` and `t` go together and with `y`; got only some");
  STD_TORCH_CHECK(
      mean.has_value() == invstd.has_value() && (y.has_value() || !mean.has_value()), op,
      ": `mean` and `invstd` go together and with `y`; got only some");
  STD_TORCH_CHECK(
      y2.has_value() == mean2.has_value() && y2.has_value() == invstd2.has_value(), op,
      ": `y2`, `mean2` and `invstd2` go together; got only some");
  const int64_t channels = dout.size(1);
  const ChannelVector vs(op, "s", s, channels), vt(op, "t", t, channels);
  const ChannelVector vmean(op, "mean", mean, channels), vinvstd(op, "invstd", invstd, channels);
  const ChannelVector vmean2(op, "mean2", mean2, channels), vinvstd2(op, "invstd2", invstd2, channels);

  const bool masked = out.has_value() || s.has_value();
  Tensor dz = masked ? empty_as(dout) : absent(dout);
  const Chunks chunks(rows_of(dout), channels);
  std::vector<double> partial(chunks.count * 3 * channels);
  dispatch_element(dout, [&](auto element) {
    using T = decltype(element);
    const BnActBwdReduce<T> params{
        data<T>(dout), data<T>(out),        data<T>(y),     data<T>(y2),   vs.get(), vt.get(),   vmean.get(),
        vmean2.get(),  mutable_data<T>(dz), partial.data(), rows_of(dout), channels, chunks.rows, masked && streams(dz)};
    parallel(chunks.count, chunks.rows * channels, [&](int64_t begin, int64_t end) {
      kernels().of<T>().bn_act_bwd_reduce(params, begin, end);
    });
  });
  Tensor sums = merge_sums(partial, dout, chunks.count, channels, 1, vinvstd.get());
  Tensor sums2 =
      y2.has_value() ? merge_sums(partial, dout, chunks.count, channels, 2, vinvstd2.get()) : absent(sums);
  return {dz, sums, sums2};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> bn_bwd_finalize(
    const Tensor& sums, const OptionalTensor& gamma, const Tensor& mean, const Tensor& invstd, int64_t n,
    bool frozen) {
  constexpr const char* op = "bn_bwd_finalize";
  const int64_t channels = mean.numel();
  STD_TORCH_CHECK(
      sums.dim() == 2 && sums.size(0) == 2 && sums.size(1) == channels && sums.is_contiguous() &&
          sums.scalar_type() == ScalarType::Float,
      op, ": `sums` must be contiguous float32 of shape (2, ", channels, "); got ", sums.numel(),
      " values of ", torch::headeronly::toString(sums.scalar_type()));
  const ChannelVector vgamma(op, "gamma", gamma, channels), vmean(op, "mean", mean, channels);
  const ChannelVector vinvstd(op, "invstd", invstd, channels);
  Tensor dgamma = empty(sums, {channels}), dbeta = empty(sums, {channels});
  Tensor p = empty(sums, {channels}), q = empty(sums, {channels}), r = empty(sums, {channels});
  const float *sum = data<float>(sums), *dot = sum + channels;
  const double values = static_cast<double>(std::max<int64_t>(n, 1));  // an empty batch has sums of 0
  for (int64_t c = 0; c < channels; ++c) {
    const double scale = static_cast<double>(vinvstd.get()[c]) * (vgamma.get() ? vgamma.get()[c] : 1.0f);
    const double slope = frozen ? 0.0 : -scale * vinvstd.get()[c] * dot[c] / values;
    const float slope_rounded = static_cast<float>(slope);
    mutable_data<float>(dgamma)[c] = dot[c];
    mutable_data<float>(dbeta)[c] = sum[c];
    mutable_data<float>(p)[c] = static_cast<float>(scale);
    mutable_data<float>(q)[c] = slope_rounded;
    // of the rounded q, so that q * y + r vanishes at the mean as exactly as fp32 can
    const double rest = -scale * sum[c] / values - static_cast<double>(slope_rounded) * vmean.get()[c];
    mutable_data<float>(r)[c] = frozen ? 0.0f : static_cast<float>(rest);
  }
  return {dgamma, dbeta, p, q, r};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fusedres_cpu, CPU, m) {
  m.impl("bn_act_bwd_reduce", TORCH_BOX(&bn_act_bwd_reduce));
  m.impl("bn_bwd_finalize", TORCH_BOX(&bn_bwd_finalize));
}

}  // namespace fusedres::cpu
