// fusedres_cuda::bn_update_running
#include "cuda/bn_update_running.h"

#include <algorithm>

#include "cuda/common/tensor.h"

namespace fusedres::cuda {
namespace {

constexpr const char* kOp = "bn_update_running";

using Tensors = std::vector<Tensor>;

struct Arguments {
  const Tensors &running_mean, &running_var, &counts, &mean, &var;
  const std::vector<int64_t>& values;

  size_t layers() const { return mean.size(); }
};

void check_lists(const Arguments& a, bool cumulative) {
  const size_t layers = a.layers();
  STD_TORCH_CHECK(
      layers > 0 && a.running_mean.size() == layers && a.running_var.size() == layers &&
          a.var.size() == layers && a.values.size() == layers,
      kOp, ": `running_mean`, `running_var`, `mean`, `var` and `n` must have an entry a layer; got ",
      a.running_mean.size(), ", ", a.running_var.size(), ", ", layers, ", ", a.var.size(), " and ",
      a.values.size());
  STD_TORCH_CHECK(
      a.counts.empty() || a.counts.size() == layers, kOp,
      ": `num_batches_tracked` must have an entry a layer, or none; got ", a.counts.size(), " for ", layers,
      " layers");
  STD_TORCH_CHECK(
      !cumulative || !a.counts.empty(), kOp,
      ": `num_batches_tracked` is needed for the cumulative average (momentum=None); got None");
}

int64_t* checked_count(const Tensor& batches, const Tensor& like) {
  check_device(kOp, "num_batches_tracked", batches, like);
  check_dtype(kOp, "num_batches_tracked", batches, ScalarType::Long);
  STD_TORCH_CHECK(
      batches.numel() == 1, kOp, ": `num_batches_tracked` must be one number; got shape ",
      shape_text(batches));
  return mutable_data<int64_t>(batches);
}

RunningLayer described(const Arguments& a, size_t i) {
  const Tensor& like = a.mean[0];
  const int64_t channels = a.mean[i].numel(), n = a.values[i];
  return {
      param(kOp, "running_mean", a.running_mean[i], channels, like),
      param(kOp, "running_var", a.running_var[i], channels, like),
      param(kOp, "mean", a.mean[i], channels, like), param(kOp, "var", a.var[i], channels, like),
      a.counts.empty() ? nullptr : checked_count(a.counts[i], like), channels,
      // One value has no unbiased variance; its biased one, 0, keeps the running statistics finite.
      n > 1 ? static_cast<double>(n) / static_cast<double>(n - 1) : 1.0, n == 0};
}

void bn_update_running(
    Tensors running_mean, Tensors running_var, Tensors num_batches_tracked, Tensors mean, Tensors var,
    std::vector<int64_t> n, std::optional<double> momentum) {
  const Arguments arguments{running_mean, running_var, num_batches_tracked, mean, var, n};
  check_lists(arguments, !momentum.has_value());
  std::vector<RunningLayer> layers;  // all are checked before one is written
  for (size_t i = 0; i < arguments.layers(); ++i) layers.push_back(described(arguments, i));
  const OnDevice device(kOp, mean[0]);
  for (size_t first = 0; first < layers.size(); first += kRunningLayers) {
    BnUpdateRunningParams params{{}, momentum.value_or(0.0), !momentum.has_value()};
    const size_t count = std::min<size_t>(kRunningLayers, layers.size() - first);
    std::copy_n(layers.begin() + static_cast<int64_t>(first), count, params.layers);
    launch_bn_update_running(params, static_cast<int>(count), device.target());
  }
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fusedres_cuda, CUDA, m) {
  m.impl("bn_update_running", TORCH_BOX(&bn_update_running));
}

}  // namespace fusedres::cuda
