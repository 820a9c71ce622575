// fusedres_cuda::bn_update_running
#include "cuda/bn_update_running.h"

#include "cuda/common/tensor.h"

namespace fusedres::cuda {
namespace {

int64_t* checked_count(const char* op, const OptionalTensor& batches, const Tensor& like) {
  if (!batches.has_value()) return nullptr;
  check_device(op, "num_batches_tracked", *batches, like);
  check_dtype(op, "num_batches_tracked", *batches, ScalarType::Long);
  STD_TORCH_CHECK(
      batches->numel() == 1, op, ": `num_batches_tracked` must be one number; got shape ",
      shape_text(*batches));
  return mutable_data<int64_t>(*batches);
}

void bn_update_running(
    Tensor running_mean, Tensor running_var, OptionalTensor num_batches_tracked, const Tensor& mean,
    const Tensor& var, int64_t n, std::optional<double> momentum) {
  constexpr const char* op = "bn_update_running";
  STD_TORCH_CHECK(
      momentum.has_value() || num_batches_tracked.has_value(), op,
      ": `num_batches_tracked` is needed for the cumulative average (momentum=None); got None");
  const int64_t channels = mean.numel();
  const BnUpdateRunningParams params{
      param(op, "running_mean", running_mean, channels, mean),
      param(op, "running_var", running_var, channels, mean), param(op, "mean", mean, channels, mean),
      param(op, "var", var, channels, mean), checked_count(op, num_batches_tracked, mean), channels,
      // One value has no unbiased variance; its biased one, 0, keeps the running statistics finite.
      n > 1 ? static_cast<double>(n) / static_cast<double>(n - 1) : 1.0, momentum.value_or(0.0),
      !momentum.has_value(), n == 0};
  const OnDevice device(op, mean);
  launch_bn_update_running(params, device.target());
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fusedres_cuda, CUDA, m) {
  m.impl("bn_update_running", TORCH_BOX(&bn_update_running));
}

}  // namespace fusedres::cuda
