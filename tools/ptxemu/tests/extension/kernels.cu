#include "../kernels/gemm.cu"
__constant__ float c_gain[2];
__device__ unsigned d_calls;

__global__ void scale_relu(const float *x, const float *s, float *y, int n, int c) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = fmaxf(x[i] * s[i % c] * c_gain[0] + c_gain[1], 0.f);
  if (i == 0) atomicAdd(&d_calls, 1u);
}

template <class T> __global__ void bad_oob(T *x, int n) { x[n + threadIdx.x] = 1; }

void set_gain(float a, float b) {
  float g[2] = {a, b};
  cudaMemcpyToSymbol(c_gain, g, sizeof g);
}

unsigned get_calls() {
  unsigned v;
  cudaMemcpyFromSymbol(&v, d_calls, 4);
  return v;
}

void run_scale_relu(const float *x, const float *s, float *y, int n, int c, cudaStream_t st) {
  scale_relu<<<(n + 255) / 256, 256, 0, st>>>(x, s, y, n, c);
}

void run_oob(float *x, int n, cudaStream_t st) { bad_oob<<<1, 32, 0, st>>>(x, n); }

void run_conv(const void *x, const void *f, const float *sc, const float *bi, const void *res, void *y, int N,
              int H, int W, int C, int K, int R, int S, int stride, int pad, int OH, int OW, int relu,
              cudaStream_t st) {
  int smem = sizeof(Smem);
  cudaFuncSetAttribute(conv, cudaFuncAttributeMaxDynamicSharedMemorySize, smem);
  dim3 g((N * OH * OW + BM - 1) / BM, (K + BN - 1) / BN);
  conv<<<g, 128, smem, st>>>((const bf *)x, (const bf *)f, sc, bi, (const bf *)res, (bf *)y, N, H, W, C, K, R,
                             S, stride, pad, OH, OW, relu);
}

__global__ void rowsum(const float *x, float *y, int n, int c) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) atomicAdd(&y[i / c], x[i]);
}

void run_rowsum(const float *x, float *y, int n, int c, cudaStream_t st) {
  cudaMemsetAsync(y, 0, n / c * 4, st);
  rowsum<<<(n + 255) / 256, 256, 0, st>>>(x, y, n, c);
}
