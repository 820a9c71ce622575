// fusedres_cpu::bn_act_bwd_reduce, ::bn_bwd_finalize
#include "cpu/bn_act_bwd_reduce.h"

#include <algorithm>
#include <tuple>

#include "cpu/bwd_sums.h"
#include "cpu/kernels/params.h"

namespace fusedres::cpu {
namespace {

void check_operands(const char* op, const Tensor& dout, const ReduceOperands& o) {
  if (o.out.has_value()) check_like(op, "out", *o.out, dout);
  if (o.y.has_value()) check_like(op, "y", *o.y, dout);
  if (o.y2.has_value()) check_like(op, "y2", *o.y2, dout);
  STD_TORCH_CHECK(
      o.s.has_value() == o.t.has_value() && (o.y.has_value() || !o.s.has_value()), op,
      ": `s` and `t` go together and with `y`; got only some");
  STD_TORCH_CHECK(
      o.mean.has_value() == o.invstd.has_value() && (o.y.has_value() || !o.mean.has_value()), op,
      ": `mean` and `invstd` go together and with `y`; got only some");
  STD_TORCH_CHECK(
      o.y2.has_value() == o.mean2.has_value() && o.y2.has_value() == o.invstd2.has_value(), op,
      ": `y2`, `mean2` and `invstd2` go together; got only some");
}

}  // namespace

ReducePass::ReducePass(const char* op, const Tensor& dout, const ReduceOperands& operands, const Tensor& dz)
    : operands_(operands),
      like_(dout),
      s_(op, "s", operands.s, dout.size(1)),
      t_(op, "t", operands.t, dout.size(1)),
      mean_(op, "mean", operands.mean, dout.size(1)),
      invstd_(op, "invstd", operands.invstd, dout.size(1)),
      mean2_(op, "mean2", operands.mean2, dout.size(1)),
      invstd2_(op, "invstd2", operands.invstd2, dout.size(1)),
      pass_{Chunks(rows_of(dout), dout.size(1)), rows_of(dout), dout.size(1), {}} {
  check_operands(op, dout, operands);
  const int64_t channels = dout.size(1);
  partial_.resize(pass_.chunks.count * 3 * channels);
  // A line that was just written, and is read again at once, is not sent past the caches.
  const bool past_caches = masks(operands) && dz.data_ptr() != dout.data_ptr() && streams(dz);
  dispatch_element(dout, [&](auto element) {
    using T = decltype(element);
    const BnActBwdReduce<T> params{
        data<T>(dout),
        data<T>(operands.out),
        data<T>(operands.y),
        data<T>(operands.y2),
        s_.get(),
        t_.get(),
        mean_.get(),
        mean2_.get(),
        mutable_data<T>(dz),
        partial_.data(),
        rows_of(dout),
        channels,
        pass_.chunks.rows,
        past_caches};
    pass_.run = [params](int64_t begin, int64_t end) {
      kernels().of<T>().bn_act_bwd_reduce(params, begin, end);
    };
  });
}

Tensor ReducePass::sums() const {
  return merge_sums(partial_, like_, pass_.chunks.count, like_.size(1), 1, invstd_.get());
}

Tensor ReducePass::sums2() const {
  if (!operands_.y2.has_value()) return absent(empty(like_, {0}));
  return merge_sums(partial_, like_, pass_.chunks.count, like_.size(1), 2, invstd2_.get());
}

namespace {

std::tuple<Tensor, Tensor, Tensor> bn_act_bwd_reduce(
    const Tensor& dout, const OptionalTensor& out, const OptionalTensor& y, const OptionalTensor& s,
    const OptionalTensor& t, const OptionalTensor& mean, const OptionalTensor& invstd,
    const OptionalTensor& y2, const OptionalTensor& mean2, const OptionalTensor& invstd2) {
  constexpr const char* op = "bn_act_bwd_reduce";
  check_activation(op, "dout", dout);
  const ReduceOperands operands{out, y, s, t, mean, invstd, y2, mean2, invstd2};
  Tensor dz = ReducePass::masks(operands) ? empty_as(dout) : absent(dout);
  const ReducePass reduce(op, dout, operands, dz);
  reduce.pass().run_all();
  return {dz, reduce.sums(), reduce.sums2()};
}

// (2, C) from (2 T, C): what other back-ends leave in parts; ours is one.
std::vector<float> added_parts(const Tensor& sums) {
  const int64_t values = 2 * sums.size(1);
  std::vector<double> total(values, 0.0);
  for (int64_t part = 0; part < sums.size(0) / 2; ++part) {
    const float* of_part = data<float>(sums) + part * values;
    for (int64_t i = 0; i < values; ++i) total[i] += of_part[i];
  }
  return std::vector<float>(total.begin(), total.end());
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> bn_bwd_finalize(
    const Tensor& sums, const OptionalTensor& gamma, const Tensor& mean, const Tensor& invstd, int64_t n,
    bool frozen) {
  constexpr const char* op = "bn_bwd_finalize";
  const int64_t channels = mean.numel();
  STD_TORCH_CHECK(
      sums.dim() == 2 && sums.size(0) % 2 == 0 && sums.size(1) == channels && sums.is_contiguous() &&
          sums.scalar_type() == ScalarType::Float,
      op, ": `sums` must be contiguous float32 of shape (2 T, ", channels, "); got ", sums.numel(),
      " values of ", torch::headeronly::toString(sums.scalar_type()));
  const ChannelVector vgamma(op, "gamma", gamma, channels), vmean(op, "mean", mean, channels);
  const ChannelVector vinvstd(op, "invstd", invstd, channels);
  Tensor dgamma = empty(sums, {channels}), dbeta = empty(sums, {channels});
  Tensor p = empty(sums, {channels}), q = empty(sums, {channels}), r = empty(sums, {channels});
  const std::vector<float> total = added_parts(sums);
  const float *sum = total.data(), *dot = sum + channels;
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
