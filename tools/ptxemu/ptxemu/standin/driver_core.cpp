// Driver API that torch and Triton use: start-up, memory, modules, launches.  All go to the stand-in runtime.
#include "driver.hpp"

#include <dlfcn.h>
#include <string>
#include <vector>

extern "C" int ptxemu_driver_unimplemented(const char *n) {
  fprintf(stderr, "[ptxemu] CUDA driver function %s is not implemented by the stand-in\n", n);
  return CUDA_ERROR_NOT_SUPPORTED;
}

template <class F> static F runtime_function(const char *n) { return (F)dlsym(RTLD_DEFAULT, n); }

static CUcontext g_context = (CUcontext)0x1000;
extern "C" {
CUresult cuInit(unsigned) { return CUDA_SUCCESS; }

CUresult cuDriverGetVersion(int *v) {
  *v = 13000;
  return CUDA_SUCCESS;
}

CUresult cuDeviceGet(CUdevice *d, int) {
  *d = 0;
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int *n) {
  *n = 1;
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetAttribute(int *v, CUdevice_attribute a, CUdevice d) {
  *v = 0;
  auto f = runtime_function<int (*)(int *, int, int)>("cudaDeviceGetAttribute");
  if (f) f(v, (int)a, d);
  return CUDA_SUCCESS;
}

CUresult cuCtxGetCurrent(CUcontext *c) {
  *c = g_context;
  return CUDA_SUCCESS;
}

CUresult cuCtxSetCurrent(CUcontext) { return CUDA_SUCCESS; }

CUresult cuDevicePrimaryCtxGetState(CUdevice, unsigned *f, int *a) {
  *f = 0;
  *a = 1;
  return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *c, CUdevice) {
  *c = g_context;
  return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice) { return CUDA_SUCCESS; }

CUresult cuDeviceGetName(char *s, int n, CUdevice) {
  snprintf(s, n, "ptxemu stand-in");
  return CUDA_SUCCESS;
}

CUresult cuCtxGetDevice(CUdevice *d) {
  *d = 0;
  return CUDA_SUCCESS;
}

CUresult cuCtxPushCurrent_v2(CUcontext) { return CUDA_SUCCESS; }

CUresult cuCtxPopCurrent_v2(CUcontext *c) { return cuCtxGetCurrent(c); }

static size_t g_limits[16];

CUresult cuCtxGetLimit(size_t *v, CUlimit l) {
  *v = (int)l < 16 ? g_limits[l] : 0;
  return CUDA_SUCCESS;
}

CUresult cuCtxSetLimit(CUlimit l, size_t v) {
  if ((int)l < 16) g_limits[l] = v;
  return CUDA_SUCCESS;
}

// error numbers of the runtime and the driver agree
#define RUNTIME(name, ...) ((CUresult)runtime_function<decltype(&name)>(#name)(__VA_ARGS__))

CUresult cuGetErrorString(CUresult e, const char **s) {
  *s = runtime_function<decltype(&cudaGetErrorString)>("cudaGetErrorString")((cudaError_t)e);
  return CUDA_SUCCESS;
}

CUresult cuGetErrorName(CUresult e, const char **s) {
  *s = runtime_function<decltype(&cudaGetErrorName)>("cudaGetErrorName")((cudaError_t)e);
  return CUDA_SUCCESS;
}

CUresult cuCtxSynchronize() { return RUNTIME(cudaDeviceSynchronize); }

CUresult cuStreamSynchronize(CUstream s) { return RUNTIME(cudaStreamSynchronize, s); }

CUresult cuStreamIsCapturing(CUstream s, CUstreamCaptureStatus *c) {
  return RUNTIME(cudaStreamIsCapturing, s, (cudaStreamCaptureStatus *)c);
}

CUresult cuMemAlloc_v2(CUdeviceptr *p, size_t n) { return RUNTIME(cudaMalloc, (void **)p, n); }

CUresult cuMemFree_v2(CUdeviceptr p) { return RUNTIME(cudaFree, (void *)p); }

CUresult cuMemcpyHtoD_v2(CUdeviceptr d, const void *s, size_t n) {
  return RUNTIME(cudaMemcpy, (void *)d, s, n, cudaMemcpyHostToDevice);
}

CUresult cuMemcpyDtoH_v2(void *d, CUdeviceptr s, size_t n) {
  return RUNTIME(cudaMemcpy, d, (void *)s, n, cudaMemcpyDeviceToHost);
}

CUresult cuMemsetD8Async(CUdeviceptr d, unsigned char v, size_t n, CUstream s) {
  return RUNTIME(cudaMemsetAsync, (void *)d, v, n, s);
}

CUresult cuMemsetD32Async(CUdeviceptr d, unsigned v, size_t n, CUstream s) {
  if ((v & 255) * 0x01010101u == v) return cuMemsetD8Async(d, v, n * 4, s);
  std::vector<unsigned> b(n, v);
  return RUNTIME(cudaMemcpy, (void *)d, b.data(), n * 4, cudaMemcpyHostToDevice);
}

CUresult cuPointerGetAttribute(void *out, CUpointer_attribute a, CUdeviceptr p) {
  cudaPointerAttributes at;
  RUNTIME(cudaPointerGetAttributes, &at, (void *)p);
  if (at.type != cudaMemoryTypeDevice) return CUDA_ERROR_INVALID_VALUE;
  switch (a) {
  case CU_POINTER_ATTRIBUTE_MEMORY_TYPE: *(unsigned *)out = CU_MEMORYTYPE_DEVICE; break;
  case CU_POINTER_ATTRIBUTE_DEVICE_POINTER: *(CUdeviceptr *)out = p; break;
  case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL: *(int *)out = 0; break;
  case CU_POINTER_ATTRIBUTE_CONTEXT: *(CUcontext *)out = g_context; break;
  default: return CUDA_ERROR_INVALID_VALUE;
  }
  return CUDA_SUCCESS;
}

CUresult cuModuleLoadData(CUmodule *m, const void *image) {
  return RUNTIME(ptxemu_module_load, (const char *)image, (void **)m);
}

CUresult cuModuleLoadDataEx(CUmodule *m, const void *image, unsigned, CUjit_option *, void **) {
  return cuModuleLoadData(m, image);
}

CUresult cuModuleLoadFatBinary(CUmodule *m, const void *image) { return cuModuleLoadData(m, image); }

CUresult cuModuleLoad(CUmodule *m, const char *path) {
  FILE *f = fopen(path, "rb");
  if (!f) return CUDA_ERROR_FILE_NOT_FOUND;
  std::string s;
  char b[65536];
  for (size_t n; (n = fread(b, 1, sizeof b, f)) > 0;) s.append(b, n);
  fclose(f);
  return cuModuleLoadData(m, s.c_str());
}

CUresult cuModuleUnload(CUmodule) { return CUDA_SUCCESS; }

CUresult cuModuleGetFunction(CUfunction *f, CUmodule m, const char *name) {
  return RUNTIME(ptxemu_module_function, m, name, (void **)f);
}

CUresult cuModuleGetGlobal_v2(CUdeviceptr *p, size_t *n, CUmodule m, const char *name) {
  return RUNTIME(ptxemu_module_global, m, name, (void **)p, n);
}

CUresult cuFuncGetAttribute(int *v, CUfunction_attribute a, CUfunction f) {
  cudaFuncAttributes at;
  RUNTIME(ptxemu_attributes, f, &at);
  switch (a) {
  case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK: *v = at.maxThreadsPerBlock; break;
  case CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES: *v = at.sharedSizeBytes; break;
  case CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES: *v = at.localSizeBytes; break;
  case CU_FUNC_ATTRIBUTE_NUM_REGS:
    *v = runtime_function<decltype(&ptxemu_registers)>("ptxemu_registers")(f);
    break;
  case CU_FUNC_ATTRIBUTE_PTX_VERSION: *v = at.ptxVersion; break;
  case CU_FUNC_ATTRIBUTE_BINARY_VERSION: *v = at.binaryVersion; break;
  case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES: *v = at.maxDynamicSharedSizeBytes; break;
  default: *v = 0;
  }
  return CUDA_SUCCESS;
}

CUresult cuFuncSetAttribute(CUfunction f, CUfunction_attribute a, int v) {
  switch (a) {
  case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES: return RUNTIME(ptxemu_max_dynamic_smem, f, v);
  case CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
  case CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED:
  case CU_FUNC_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE: return CUDA_SUCCESS;
  default: return CUDA_ERROR_INVALID_VALUE;
  }
}

CUresult cuFuncSetCacheConfig(CUfunction, CUfunc_cache) { return CUDA_SUCCESS; }

CUresult cuLaunchKernelEx(const CUlaunchConfig *c, CUfunction f, void **args, void **extra) {
  static_assert(sizeof(CUlaunchAttribute) == sizeof(cudaLaunchAttribute),
                "the runtime uses the driver's launch attributes");
  return RUNTIME(ptxemu_launch, f, dim3(c->gridDimX, c->gridDimY, c->gridDimZ),
                 dim3(c->blockDimX, c->blockDimY, c->blockDimZ), c->sharedMemBytes, c->hStream,
                 (const cudaLaunchAttribute *)c->attrs, c->numAttrs, false, args, extra);
}

CUresult cuLaunchKernel(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                        unsigned bz, unsigned smem, CUstream s, void **args, void **extra) {
  return RUNTIME(ptxemu_launch, f, dim3(gx, gy, gz), dim3(bx, by, bz), smem, s, nullptr, 0, false, args,
                 extra);
}

CUresult cuLaunchCooperativeKernel(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
                                   unsigned by, unsigned bz, unsigned smem, CUstream s, void **args) {
  return RUNTIME(ptxemu_launch, f, dim3(gx, gy, gz), dim3(bx, by, bz), smem, s, nullptr, 0, true, args,
                 nullptr);
}

CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int *n, CUfunction f, int bs, size_t dyn) {
  *n = runtime_function<decltype(&ptxemu_occupancy)>("ptxemu_occupancy")(f, bs, dyn);
  return CUDA_SUCCESS;
}

CUresult cuOccupancyMaxActiveClusters(int *n, CUfunction f, const CUlaunchConfig *c) {
  int size = 1, sms = 0;
  for (unsigned i = 0; i < c->numAttrs; i++)
    if (c->attrs[i].id == CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION)
      size = c->attrs[i].value.clusterDim.x * c->attrs[i].value.clusterDim.y * c->attrs[i].value.clusterDim.z;
  cuOccupancyMaxActiveBlocksPerMultiprocessor(n, f, c->blockDimX * c->blockDimY * c->blockDimZ,
                                              c->sharedMemBytes);
  cuDeviceGetAttribute(&sms, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 0);
  *n = *n * sms / size;
  return CUDA_SUCCESS;
}

CUresult cuGetProcAddress_v2(const char *s, void **f, int, cuuint64_t, CUdriverProcAddressQueryResult *r) {
  *f = dlsym(RTLD_DEFAULT, s);
  if (r) *r = *f ? CU_GET_PROC_ADDRESS_SUCCESS : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
  return *f ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}
}
