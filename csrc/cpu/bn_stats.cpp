// fusedres_cpu::bn_stats, ::bn_finalize, ::bn_update_running
#include "cpu/bn_stats.h"

#include <tuple>
#include <vector>

#include "cpu/kernels/params.h"
#include "cpu/tensor.h"

namespace fusedres::cpu {

StatsPass::StatsPass(const Tensor& y) : pass{Chunks(rows_of(y), y.size(1)), rows_of(y), y.size(1), {}} {
  const int64_t channels = y.size(1), chunks = pass.chunks.count;
  count = empty(y, {chunks});
  mean = empty(y, {chunks, channels});
  m2 = empty(y, {chunks, channels});
  dispatch_element(y, [&](auto element) {
    using T = decltype(element);
    const BnStats<T> params{
        data<T>(y),
        mutable_data<float>(count),
        mutable_data<float>(mean),
        mutable_data<float>(m2),
        rows_of(y),
        channels,
        pass.chunks.rows};
    pass.run = [params](int64_t begin, int64_t end) { kernels().of<T>().bn_stats(params, begin, end); };
  });
}

namespace {

std::tuple<Tensor, Tensor, Tensor> bn_stats(const Tensor& y) {
  check_activation("bn_stats", "y", y);
  StatsPass stats(y);
  stats.pass.run_all();
  return {stats.count, stats.mean, stats.m2};
}

void check_partials(const Tensor& count, const Tensor& mean, const Tensor& m2) {
  for (const Tensor* x : {&count, &mean, &m2}) {
    STD_TORCH_CHECK(
        x->scalar_type() == ScalarType::Float && x->is_contiguous(),
        "bn_finalize: `count`, `mean` and `m2` must be contiguous float32; got ",
        torch::headeronly::toString(x->scalar_type()));
  }
  STD_TORCH_CHECK(
      count.dim() == 1 && mean.dim() == 2 && m2.dim() == 2 && mean.size(0) == count.size(0) &&
          m2.size(0) == mean.size(0) && m2.size(1) == mean.size(1),
      "bn_finalize: `count` must have shape (T), `mean` and `m2` (T, C); got T = ", count.numel(), ", ",
      mean.numel(), " means and ", m2.numel(), " sums");
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> bn_finalize(
    const Tensor& count, const Tensor& mean, const Tensor& m2, const OptionalTensor& gamma,
    const OptionalTensor& beta, double eps) {
  check_partials(count, mean, m2);
  const int64_t channels = mean.size(1);
  const ChannelVector vgamma("bn_finalize", "gamma", gamma, channels),
      vbeta("bn_finalize", "beta", beta, channels);
  Tensor out_mean = empty(mean, {channels}), var = empty(mean, {channels}), invstd = empty(mean, {channels});
  Tensor scale = empty(mean, {channels}), shift = empty(mean, {channels});
  kernels().bn_finalize(
      {data<float>(count), data<float>(mean), data<float>(m2), vgamma.get(), vbeta.get(),
       mutable_data<float>(out_mean), mutable_data<float>(var), mutable_data<float>(invstd),
       mutable_data<float>(scale), mutable_data<float>(shift), mean.size(0), channels, eps});
  return {out_mean, var, invstd, scale, shift};
}

template <typename T>
void blend(const Tensor& running, const float* batch, double scale, double momentum) {
  T* r = mutable_data<T>(running);
  const int64_t stride = running.stride(0);
  for (int64_t c = 0; c < running.size(0); ++c) {
    double old;
    if constexpr (std::is_same_v<T, BFloat16>) {
      old = to_float(r[c * stride]);
    } else {
      old = r[c * stride];
    }
    const double blended = (1.0 - momentum) * old + momentum * scale * batch[c];
    if constexpr (std::is_same_v<T, BFloat16>) {
      r[c * stride] = from_float<BFloat16>(static_cast<float>(blended));
    } else {
      r[c * stride] = static_cast<T>(blended);
    }
  }
}

void blend_any(const char* name, const Tensor& running, const float* batch, double scale, double momentum) {
  switch (running.scalar_type()) {
    case ScalarType::Float:
      return blend<float>(running, batch, scale, momentum);
    case ScalarType::Double:
      return blend<double>(running, batch, scale, momentum);
    case ScalarType::BFloat16:
      return blend<BFloat16>(running, batch, scale, momentum);
    default:
      STD_TORCH_CHECK(
          false, "bn_update_running: `", name,
          "` must be float32, float64 or bfloat16 on the cpu back-end; got ",
          torch::headeronly::toString(running.scalar_type()));
  }
}

using Tensors = std::vector<Tensor>;

// Counts a batch, and returns the factor that the running statistics move by.
double counted_factor(const Tensor& batches, std::optional<double> momentum) {
  STD_TORCH_CHECK(
      batches.scalar_type() == ScalarType::Long && batches.numel() == 1,
      "bn_update_running: `num_batches_tracked` must be one int64; got ", batches.numel(), " values of ",
      torch::headeronly::toString(batches.scalar_type()));
  const int64_t count = ++*mutable_data<int64_t>(batches);
  return momentum.has_value() ? *momentum : 1.0 / static_cast<double>(count);
}

void bn_update_running(
    Tensors running_mean, Tensors running_var, Tensors num_batches_tracked, Tensors mean, Tensors var,
    std::vector<int64_t> n, std::optional<double> momentum) {
  constexpr const char* op = "bn_update_running";
  const size_t layers = mean.size();
  STD_TORCH_CHECK(
      running_mean.size() == layers && running_var.size() == layers && var.size() == layers &&
          n.size() == layers && (num_batches_tracked.empty() || num_batches_tracked.size() == layers),
      op, ": every list must have an entry a layer, `num_batches_tracked` may have none; got ",
      running_mean.size(), ", ", running_var.size(), ", ", num_batches_tracked.size(), ", ", layers, ", ",
      var.size(), " and ", n.size());
  STD_TORCH_CHECK(
      momentum.has_value() || !num_batches_tracked.empty(), op,
      ": `num_batches_tracked` is needed for the cumulative average (momentum=None); got None");
  for (size_t i = 0; i < layers; ++i) {
    const int64_t channels = mean[i].numel();
    STD_TORCH_CHECK(
        running_mean[i].dim() == 1 && running_mean[i].size(0) == channels && running_var[i].dim() == 1 &&
            running_var[i].size(0) == channels,
        op, ": `running_mean` and `running_var` must have shape (", channels, "); got ",
        running_mean[i].numel(), " and ", running_var[i].numel(), " values");
    const ChannelVector vmean(op, "mean", mean[i], channels), vvar(op, "var", var[i], channels);
    const double factor = num_batches_tracked.empty() ? momentum.value_or(0.0)
                                                      : counted_factor(num_batches_tracked[i], momentum);
    if (n[i] == 0) continue;  // an empty batch counts as a batch and moves nothing, as in torch
    // One value has no unbiased variance; its biased one, 0, keeps the running statistics finite.
    const double unbiased = n[i] > 1 ? static_cast<double>(n[i]) / static_cast<double>(n[i] - 1) : 1.0;
    blend_any("running_mean", running_mean[i], vmean.get(), 1.0, factor);
    blend_any("running_var", running_var[i], vvar.get(), unbiased, factor);
  }
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fusedres_cpu, CPU, m) {
  m.impl("bn_stats", TORCH_BOX(&bn_stats));
  m.impl("bn_finalize", TORCH_BOX(&bn_finalize));
  m.impl("bn_update_running", TORCH_BOX(&bn_update_running));
}

}  // namespace fusedres::cpu
