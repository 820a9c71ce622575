// fusedres_cuda::bn_finalize
#include "cuda/bn_finalize.h"

#include <tuple>

#include "cuda/common/tensor.h"

namespace fusedres::cuda {
namespace {

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> bn_finalize(
    const Tensor& count, const Tensor& mean, const Tensor& m2, const OptionalTensor& gamma,
    const OptionalTensor& beta, double eps) {
  constexpr const char* op = "bn_finalize";
  STD_TORCH_CHECK(mean.dim() == 2, op, ": `mean` must have shape (T, C); got ", shape_text(mean));
  const int64_t tiles = mean.size(0), channels = mean.size(1);
  check_floats(op, "mean", mean, {tiles, channels}, mean);
  check_floats(op, "m2", m2, {tiles, channels}, mean);
  check_floats(op, "count", count, {tiles}, mean);
  const OnDevice device(op, mean);
  Tensor out_mean = empty(mean, {channels}), var = empty(mean, {channels}), invstd = empty(mean, {channels});
  Tensor scale = empty(mean, {channels}), shift = empty(mean, {channels});
  const BnFinalizeParams params{
      data<float>(count),
      data<float>(mean),
      data<float>(m2),
      param(op, "gamma", gamma, channels, mean),
      param(op, "beta", beta, channels, mean),
      mutable_data<float>(out_mean),
      mutable_data<float>(var),
      mutable_data<float>(invstd),
      mutable_data<float>(scale),
      mutable_data<float>(shift),
      tiles,
      channels,
      eps};
  launch_bn_finalize(params, are_aligned(params.mean, params.m2), device.target());
  return {out_mean, var, invstd, scale, shift};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fusedres_cuda, CUDA, m) { m.impl("bn_finalize", TORCH_BOX(&bn_finalize)); }

}  // namespace fusedres::cuda
