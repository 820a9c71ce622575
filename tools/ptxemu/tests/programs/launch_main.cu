// stand-alone CUDA program for the stand-in runtime: cooperative launch, launch attributes, stream capture
// and graphs
#include <cooperative_groups.h>
#include <cuda_runtime.h>
#include <cstdio>
#include <cstdlib>
#include <vector>
namespace cg = cooperative_groups;
#define CK(x) \
  do { \
    cudaError_t e_ = (x); \
    if (e_ != cudaSuccess) { \
      printf("FAIL line %d %s: %s\n", __LINE__, #x, cudaGetErrorString(e_)); \
      exit(1); \
    } \
  } while (0)
#define WANT(e, x) \
  do { \
    cudaError_t e_ = (x); \
    if (e_ != (e)) { \
      printf("FAIL line %d %s: %d (%s)\n", __LINE__, #x, e_, cudaGetErrorString(e_)); \
      exit(1); \
    } \
    cudaGetLastError(); \
  } while (0)
#define TRUE(x) \
  do { \
    if (!(x)) { \
      printf("FAIL line %d %s\n", __LINE__, #x); \
      exit(1); \
    } \
  } while (0)

// every block adds its neighbours' values of the previous round; wrong without a grid-wide barrier
__global__ void rounds(int *a, int *b, int n, int count) {
  cg::grid_group g = cg::this_grid();
  for (int r = 0; r < count; r++) {
    int *s = r & 1 ? b : a, *d = r & 1 ? a : b;
    for (int i = g.thread_rank(); i < n; i += g.size()) d[i] = s[(i + n - 1) % n] + s[(i + 1) % n];
    g.sync();
  }
}

__global__ void no_grid(int *a) {
  cg::this_grid().sync();
  *a = 1;
}

__global__ void dependent(int *a, int v) {
#if __CUDA_ARCH__ >= 900
  cudaTriggerProgrammaticLaunchCompletion();
  cudaGridDependencySynchronize();
#endif
  a[threadIdx.x] = a[threadIdx.x] * 2 + v;
}

__global__ void add(int *a, int v) { a[threadIdx.x] += v; }

static int get(int *p) {
  int v;
  CK(cudaMemcpy(&v, p, 4, cudaMemcpyDeviceToHost));
  return v;
}

static void cooperative() {
  const int n = 700, count = 9;
  std::vector<int> A(n), B(n);
  for (int i = 0; i < n; i++) A[i] = i * 7 % 13;
  int *a, *b, N = n, C = count;
  CK(cudaMalloc(&a, n * 4));
  CK(cudaMalloc(&b, n * 4));
  CK(cudaMemcpy(a, A.data(), n * 4, cudaMemcpyHostToDevice));
  int dev = 0;
  CK(cudaDeviceGetAttribute(&dev, cudaDevAttrCooperativeLaunch, 0));
  TRUE(dev == 1);
  void *args[] = {&a, &b, &N, &C};
  CK(cudaLaunchCooperativeKernel((void *)rounds, dim3(12), dim3(64), args, 0, 0));
  CK(cudaDeviceSynchronize());
  std::vector<int> R(n);
  for (int r = 0; r < count; r++) {
    for (int i = 0; i < n; i++) R[i] = A[(i + n - 1) % n] + A[(i + 1) % n];
    A = R;
  }
  CK(cudaMemcpy(R.data(), count & 1 ? b : a, n * 4, cudaMemcpyDeviceToHost));
  TRUE(R == A);
  WANT(cudaErrorCooperativeLaunchTooLarge,
       cudaLaunchCooperativeKernel((void *)rounds, dim3(100000), dim3(64), args, 0, 0));
  cudaLaunchAttribute at[2];
  at[0].id = cudaLaunchAttributeCooperative;
  at[0].val.cooperative = 1;
  at[1].id = cudaLaunchAttributePriority;
  at[1].val.priority = 0;
  cudaLaunchConfig_t lc = {};
  lc.gridDim = 5;
  lc.blockDim = 96;
  lc.attrs = at;
  lc.numAttrs = 2;
  CK(cudaMemcpy(a, A.data(), n * 4, cudaMemcpyHostToDevice));
  CK(cudaLaunchKernelEx(&lc, rounds, a, b, N, 2));
  CK(cudaDeviceSynchronize());
  for (int r = 0; r < 2; r++) {
    for (int i = 0; i < n; i++) R[i] = A[(i + n - 1) % n] + A[(i + 1) % n];
    A = R;
  }
  CK(cudaMemcpy(R.data(), a, n * 4, cudaMemcpyDeviceToHost));
  TRUE(R == A);
  no_grid<<<1, 32>>>(a);
  TRUE(cudaGetLastError() != cudaSuccess);
  CK(cudaFree(a));
  CK(cudaFree(b));
}

static void attributes() {
  int *a;
  CK(cudaMalloc(&a, 32 * 4));
  CK(cudaMemset(a, 0, 128));
  cudaStream_t s;
  CK(cudaStreamCreate(&s));
  cudaLaunchAttribute at;
  at.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  at.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t lc = {};
  lc.gridDim = 1;
  lc.blockDim = 32;
  lc.stream = s;
  lc.attrs = &at;
  lc.numAttrs = 1;
  for (int i = 0; i < 3; i++) CK(cudaLaunchKernelEx(&lc, dependent, a, 1));
  CK(cudaStreamSynchronize(s));
  TRUE(get(a) == 7);
  int v = 5;
  void *args[] = {&a, &v};
  CK(cudaLaunchKernelExC(&lc, (void *)add, args));
  TRUE(get(a) == 12);
  CK(cudaStreamDestroy(s));
  CK(cudaFree(a));
}

static void graphs() {
  cudaStream_t s, t;
  cudaGraph_t g;
  cudaGraphExec_t x;
  cudaEvent_t e, f;
  int *a, *b, h = 100;
  CK(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking));
  CK(cudaStreamCreateWithFlags(&t, cudaStreamNonBlocking));
  CK(cudaEventCreate(&e));
  CK(cudaEventCreate(&f));
  CK(cudaMalloc(&a, 128));
  CK(cudaMalloc(&b, 128));
  CK(cudaMemset(a, 0, 128));
  CK(cudaMemset(b, 0, 128));
  CK(cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal));
  add<<<1, 32, 0, s>>>(a, 3);
  CK(cudaEventRecord(e, s));
  CK(cudaStreamWaitEvent(t, e, 0));
  CK(cudaMemcpyAsync(b, a, 128, cudaMemcpyDeviceToDevice, t));
  add<<<1, 32, 0, t>>>(b, 1);
  CK(cudaEventRecord(f, t));
  CK(cudaStreamWaitEvent(s, f, 0));
  cudaStreamCaptureStatus st;
  CK(cudaStreamIsCapturing(t, &st));
  TRUE(st == cudaStreamCaptureStatusActive);
  CK(cudaStreamEndCapture(s, &g));
  TRUE(get(a) == 0 && get(b) == 0);
  size_t n = 0;
  CK(cudaGraphGetNodes(g, nullptr, &n));
  TRUE(n == 3);
  CK(cudaGraphInstantiate(&x, g, 0));
  CK(cudaGraphDestroy(g));
  for (int i = 1; i < 4; i++) {
    CK(cudaGraphLaunch(x, s));
    CK(cudaStreamSynchronize(s));
    TRUE(get(a) == 3 * i && get(b) == 3 * i + 1);
  }
  CK(cudaGraphExecDestroy(x));
  // host to device copy and memset, value read at replay
  CK(cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal));
  CK(cudaMemsetAsync(a, 0, 128, s));
  CK(cudaMemcpyAsync(a, &h, 4, cudaMemcpyHostToDevice, s));
  add<<<1, 32, 0, s>>>(a, 1);
  CK(cudaStreamEndCapture(s, &g));
  CK(cudaGraphInstantiate(&x, g, 0));
  h = 200;
  CK(cudaGraphLaunch(x, s));
  CK(cudaStreamSynchronize(s));
  TRUE(get(a) == 201);
  // illegal under capture
#define BAD(err, call) \
  do { \
    CK(cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal)); \
    add<<<1, 32, 0, s>>>(a, 1); \
    WANT(err, call); \
    WANT(cudaErrorStreamCaptureInvalidated, cudaStreamEndCapture(s, &g)); \
    TRUE(!g); \
  } while (0)
  void *p;
  BAD(cudaErrorStreamCaptureUnsupported, cudaMalloc(&p, 4));
  BAD(cudaErrorStreamCaptureUnsupported, cudaDeviceSynchronize());
  BAD(cudaErrorStreamCaptureUnsupported, cudaStreamSynchronize(s));
  BAD(cudaErrorStreamCaptureUnsupported, cudaMemcpy(&h, a, 4, cudaMemcpyDeviceToHost));
  CK(cudaEventRecord(e, t));
  BAD(cudaErrorStreamCaptureIsolation, cudaStreamWaitEvent(s, e, 0));
  CK(cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal));
  CK(cudaEventRecord(e, s));
  CK(cudaStreamWaitEvent(t, e, 0));
  add<<<1, 32, 0, t>>>(a, 1);
  WANT(cudaErrorCapturedEvent, cudaEventSynchronize(e));
  WANT(cudaErrorStreamCaptureUnjoined, cudaStreamEndCapture(s, &g));
  WANT(cudaErrorStreamCaptureUnsupported, cudaStreamBeginCapture(0, cudaStreamCaptureModeGlobal));
  CK(cudaStreamBeginCapture(s, cudaStreamCaptureModeRelaxed));
  CK(cudaMalloc(&p, 4));
  CK(cudaFree(p));
  CK(cudaStreamEndCapture(s, &g));
  CK(cudaGraphDestroy(g));
  // memory freed after capture is caught at replay
  int *c;
  CK(cudaMalloc(&c, 128));
  CK(cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal));
  add<<<1, 32, 0, s>>>(c, 1);
  CK(cudaStreamEndCapture(s, &g));
  CK(cudaGraphInstantiate(&x, g, 0));
  CK(cudaFree(c));
  TRUE(cudaGraphLaunch(x, s) == cudaErrorLaunchFailure);
}

int main() {
  attributes();
  cooperative();
  graphs();
  printf("fine\n");
}
