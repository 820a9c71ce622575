#include <ATen/ATen.h>
#include <torch/library.h>
#include <c10/cuda/CUDAStream.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
void set_gain(float a, float b);
unsigned get_calls();
void run_scale_relu(const float *, const float *, float *, int, int, cudaStream_t);
void run_oob(float *, int, cudaStream_t);
void run_rowsum(const float *, float *, int, int, cudaStream_t);
void run_conv(const void *, const void *, const float *, const float *, const void *, void *, int, int, int,
              int, int, int, int, int, int, int, int, int, cudaStream_t);
using at::Tensor;

Tensor scale_relu(const Tensor &x, const Tensor &s, double g, double b) {
  c10::cuda::CUDAGuard guard(x.device());
  Tensor y = at::empty_like(x);
  set_gain(g, b);
  run_scale_relu(x.data_ptr<float>(), s.data_ptr<float>(), y.data_ptr<float>(), x.numel(), s.numel(),
                 c10::cuda::getCurrentCUDAStream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return y;
}

Tensor conv(const Tensor &x, const Tensor &f, const Tensor &sc, const Tensor &bi,
            const std::optional<Tensor> &res, int64_t stride, int64_t pad, bool relu) {
  int N = x.size(0), H = x.size(1), W = x.size(2), C = x.size(3), K = f.size(0), R = f.size(1),
      OH = (H + 2 * pad - R) / stride + 1, OW = (W + 2 * pad - R) / stride + 1;
  Tensor y = at::empty({N, OH, OW, K}, x.options());
  run_conv(x.data_ptr(), f.data_ptr(), sc.data_ptr<float>(), bi.data_ptr<float>(),
           res ? res->data_ptr() : nullptr, y.data_ptr(), N, H, W, C, K, R, R, stride, pad, OH, OW, relu,
           c10::cuda::getCurrentCUDAStream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return y;
}

void oob(Tensor x) {
  run_oob(x.data_ptr<float>(), x.numel(), c10::cuda::getCurrentCUDAStream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

Tensor rowsum(const Tensor &x, bool current) {
  Tensor y = at::empty({x.size(0)}, x.options());
  run_rowsum(x.data_ptr<float>(), y.data_ptr<float>(), x.numel(), x.size(1),
             current ? c10::cuda::getCurrentCUDAStream().stream() : nullptr);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return y;
}

int64_t calls() { return get_calls(); }

TORCH_LIBRARY(pe_test, m) {
  m.def("scale_relu(Tensor x, Tensor s, float g, float b) -> Tensor");
  m.def("conv(Tensor x, Tensor f, Tensor sc, Tensor bi, Tensor? res, int stride, int pad, bool relu) -> "
        "Tensor");
  m.def("rowsum(Tensor x, bool current) -> Tensor");
  m.def("oob(Tensor(a!) x) -> ()");
  m.def("calls() -> int", &calls);
}

TORCH_LIBRARY_IMPL(pe_test, CUDA, m) {
  m.impl("scale_relu", &scale_relu);
  m.impl("conv", &conv);
  m.impl("rowsum", &rowsum);
  m.impl("oob", &oob);
}
