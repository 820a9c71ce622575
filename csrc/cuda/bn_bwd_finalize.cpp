// fusedres_cuda::bn_bwd_finalize
#include "cuda/bn_bwd_finalize.h"

#include <algorithm>
#include <tuple>

#include "cuda/common/tensor.h"

namespace fusedres::cuda {
namespace {

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> bn_bwd_finalize(
    const Tensor& sums, const OptionalTensor& gamma, const Tensor& mean, const Tensor& invstd, int64_t n,
    bool frozen) {
  constexpr const char* op = "bn_bwd_finalize";
  const int64_t channels = mean.numel();
  STD_TORCH_CHECK(
      sums.dim() == 2 && sums.size(0) % 2 == 0, op, ": `sums` must have shape (2 T, C); got ",
      shape_text(sums));
  const int64_t parts = sums.size(0) / 2;
  check_floats(op, "sums", sums, {2 * parts, channels}, sums);
  const OnDevice device(op, sums);
  Tensor dgamma = empty(sums, {channels}), dbeta = empty(sums, {channels});
  Tensor p = empty(sums, {channels}), q = empty(sums, {channels}), r = empty(sums, {channels});
  const BnBwdFinalizeParams params{
      data<float>(sums),
      param(op, "gamma", gamma, channels, sums),
      param(op, "mean", mean, channels, sums),
      param(op, "invstd", invstd, channels, sums),
      mutable_data<float>(dgamma),
      mutable_data<float>(dbeta),
      mutable_data<float>(p),
      mutable_data<float>(q),
      mutable_data<float>(r),
      parts,
      channels,
      static_cast<double>(std::max<int64_t>(n, 1)),  // an empty batch has sums of 0
      frozen};
  launch_bn_bwd_finalize(params, device.target());
  return {dgamma, dbeta, p, q, r};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fusedres_cuda, CUDA, m) { m.impl("bn_bwd_finalize", TORCH_BOX(&bn_bwd_finalize)); }

}  // namespace fusedres::cuda
