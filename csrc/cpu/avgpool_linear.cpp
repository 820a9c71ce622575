// fusedres_cpu::avgpool_linear; its schema stands in fusedres/backends/cpu/engine.py.
#include "cpu/conv/shape.h"
#include "cpu/kernels/params.h"
#include "cpu/tensor.h"

namespace fusedres::cpu {
namespace {

using conv::ceil_div;

constexpr const char* kOp = "avgpool_linear";

void check_weight(const Tensor& weight, const Tensor& x) {
  STD_TORCH_CHECK(
      weight.dim() == 2 && weight.size(1) == x.size(1) && weight.is_contiguous(), kOp,
      ": `weight` must be contiguous, of shape (K, ", x.size(1), "); got ", weight.dim(), " dimensions, ",
      weight.numel(), " values");
  STD_TORCH_CHECK(
      weight.scalar_type() == x.scalar_type(), kOp, ": `weight` must have the dtype of `x`; got ",
      torch::headeronly::toString(weight.scalar_type()));
}

// linear(mean of x over H and W): x (N, C, H, W), weight (K, C), bias (K) -> (N, K). The means stay fp32.
Tensor avgpool_linear(const Tensor& x, const Tensor& weight, const OptionalTensor& bias) {
  check_activation(kOp, "x", x);
  check_weight(weight, x);
  const int64_t images = x.size(0), channels = x.size(1), pixels = x.size(2) * x.size(3);
  STD_TORCH_CHECK(pixels > 0, kOp, ": `x` must have a pixel at least; got none");
  const int64_t rows = weight.size(0);
  const ChannelVector vbias(kOp, "bias", bias, rows);
  Tensor means = empty(x, {images, channels}), out = empty(x, {images, rows}, x.scalar_type());
  dispatch_element(x, [&](auto element) {
    using T = decltype(element);
    const ChannelMeans<T> pool{data<T>(x), mutable_data<float>(means), pixels, channels};
    parallel(images * ceil_div(channels, kMeansSlice), kMeansSlice * pixels, [&](int64_t begin, int64_t end) {
      kernels().of<T>().channel_means(pool, begin, end);
    });
    const Linear<T> linear{
        data<float>(means), data<T>(weight), vbias.get(), mutable_data<T>(out), images, channels, rows};
    parallel(ceil_div(rows, kLinearRows), kLinearRows * channels, [&](int64_t begin, int64_t end) {
      kernels().of<T>().linear(linear, begin, end);
    });
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fusedres_cpu, CPU, m) { m.impl("avgpool_linear", TORCH_BOX(&avgpool_linear)); }

}  // namespace fusedres::cpu
