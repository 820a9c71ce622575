// fusedres_cpu::widened and ::narrowed: activations from bf16 to fp32 and back. ATen's conversion maps what
// is larger than 32 MB anew each time; here it lies in the pool.
#include <algorithm>

#include "cpu/kernels/params.h"
#include "cpu/tensor.h"

namespace fusedres::cpu {
namespace {

template <typename From, typename To>
Tensor converted(
    const char* op, const Tensor& x, ScalarType from, ScalarType to,
    void (*kernel)(const Convert<From, To>&, int64_t, int64_t)) {
  check_activation(op, "x", x);
  STD_TORCH_CHECK(
      x.scalar_type() == from, op, ": `x` must be ", torch::headeronly::toString(from), "; got ",
      torch::headeronly::toString(x.scalar_type()));
  Tensor out = empty_nhwc(x, {x.size(0), x.size(1), x.size(2), x.size(3)}, to);
  // Lines of 32 channels, which a thread's share does not cut: what is streamed stays aligned.
  constexpr int64_t kLine = 32;
  const int64_t values = x.numel();
  const Convert<From, To> params{data<From>(x), mutable_data<To>(out), streams(out)};
  parallel((values + kLine - 1) / kLine, kLine, [&](int64_t begin, int64_t end) {
    kernel(params, begin * kLine, std::min(end * kLine, values));
  });
  return out;
}

Tensor widened(const Tensor& x) {
  return converted<BFloat16, float>("widened", x, ScalarType::BFloat16, ScalarType::Float, kernels().widen);
}

Tensor narrowed(const Tensor& x) {
  return converted<float, BFloat16>("narrowed", x, ScalarType::Float, ScalarType::BFloat16, kernels().narrow);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fusedres_cpu, CPU, m) {
  m.impl("widened", TORCH_BOX(&widened));
  m.impl("narrowed", TORCH_BOX(&narrowed));
}

}  // namespace fusedres::cpu
