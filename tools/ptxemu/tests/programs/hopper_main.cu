// stand-alone CUDA program for the stand-in runtime: TMA + wgmma GEMM through the runtime and driver APIs,
// error checks, events, symbols
#include "../kernels/hopper.cu"
#include <cuda_runtime.h>
#include <cstdio>
#include <cstdlib>
#include <cmath>
#include <vector>
#define CK(x) \
  do { \
    cudaError_t e_ = (x); \
    if (e_ != cudaSuccess) { \
      printf("FAIL %s: %s\n", #x, cudaGetErrorString(e_)); \
      exit(1); \
    } \
  } while (0)
typedef CUresult (*Enc)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *,
                        const cuuint64_t *, const cuuint32_t *, const cuuint32_t *, CUtensorMapInterleave,
                        CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

static CUtensorMap map2(Enc enc, void *p, int rows, int cols) {
  CUtensorMap m;
  cuuint64_t d[2] = {(cuuint64_t)cols, (cuuint64_t)rows}, s[1] = {(cuuint64_t)cols * 2};
  cuuint32_t b[2] = {64, 64}, e[2] = {1, 1};
  if (enc(&m, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, p, d, s, b, e, CU_TENSOR_MAP_INTERLEAVE_NONE,
          CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
          CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE)) {
    printf("encode failed\n");
    exit(1);
  }
  return m;
}

int main() {
  const int M = 128, N = 96, K = 200;
  std::vector<bf> A(M * K), B(N * K);
  std::vector<float> C(M * N);
  srand(1);
  for (auto &v : A) v = __float2bfloat16(rand() / (float)RAND_MAX - .5f);
  for (auto &v : B) v = __float2bfloat16(rand() / (float)RAND_MAX - .5f);
  bf *a, *b;
  float *c;
  CK(cudaMalloc(&a, A.size() * 2));
  CK(cudaMalloc(&b, B.size() * 2));
  CK(cudaMalloc(&c, C.size() * 4));
  CK(cudaMemcpy(a, A.data(), A.size() * 2, cudaMemcpyHostToDevice));
  CK(cudaMemcpy(b, B.data(), B.size() * 2, cudaMemcpyHostToDevice));
  void *fp;
  cudaDriverEntryPointQueryResult qr;
  CK(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &fp, 12000, cudaEnableDefault, &qr));
  Enc enc = (Enc)fp;
  CUtensorMap ma = map2(enc, a, M, K), mb = map2(enc, b, N, K);
  int smem = sizeof(Sm);
  gemm90<<<dim3(2, 2), 256, smem>>>(ma, mb, c, M, N, K);
  if (cudaGetLastError() == cudaSuccess) {
    printf("FAIL: launch above 48 KiB without opt-in succeeded\n");
    return 1;
  }
  CK(cudaFuncSetAttribute(gemm90, cudaFuncAttributeMaxDynamicSharedMemorySize, smem));
  gemm90<<<dim3(2, 2), 256, smem>>>(ma, mb, c, M, N, K);
  CK(cudaGetLastError());
  CK(cudaDeviceSynchronize());
  CK(cudaMemcpy(C.data(), c, C.size() * 4, cudaMemcpyDeviceToHost));
  double worst = 0;
  for (int i = 0; i < M; i++)
    for (int j = 0; j < N; j++) {
      double s = 0;
      for (int k = 0; k < K; k++)
        s += (double)__bfloat162float(A[i * K + k]) * __bfloat162float(B[j * K + k]);
      worst = fmax(worst, fabs(s - C[i * N + j]));
    }
  printf("worst %g\n", worst);
  if (!(worst < 1e-4)) return 1;
  CK(cudaFree(a));
  CK(cudaFree(b));
  CK(cudaFree(c));
  printf("fine\n");
}
