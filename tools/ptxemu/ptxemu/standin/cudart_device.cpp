// The one device and its properties.
#include "standin.hpp"

API cudaGetDeviceCount(int *n) {
  *n = 1;
  return cudaSuccess;
}

API cudaGetDevice(int *d) {
  *d = 0;
  return cudaSuccess;
}

API cudaSetDevice(int d) { return d == 0 ? cudaSuccess : set_error(cudaErrorInvalidDevice); }

API cudaDeviceSynchronize() { return forbid_sync(0, true, "cudaDeviceSynchronize"); }

API cudaDeviceReset() { return cudaSuccess; }

API cudaGetDeviceFlags(unsigned *f) {
  *f = 0;
  return cudaSuccess;
}

API cudaSetDeviceFlags(unsigned) { return cudaSuccess; }

API cudaDriverGetVersion(int *v) {
  *v = 13000;
  return cudaSuccess;
}

API cudaRuntimeGetVersion(int *v) {
  *v = 13000;
  return cudaSuccess;
}

API cudaDeviceGetStreamPriorityRange(int *a, int *b) {
  if (a) *a = 0;
  if (b) *b = -5;
  return cudaSuccess;
}

API cudaDeviceCanAccessPeer(int *c, int, int) {
  *c = 0;
  return cudaSuccess;
}

API cudaDeviceGetPCIBusId(char *s, int n, int) {
  snprintf(s, n, "0000:01:00.0");
  return cudaSuccess;
}

API cudaDeviceGetAttribute(int *v, cudaDeviceAttr a, int) {
  *v = 0;
  switch (a) {
  case cudaDevAttrMaxThreadsPerBlock: *v = 1024; break;
  case cudaDevAttrMaxBlockDimX:
  case cudaDevAttrMaxBlockDimY: *v = 1024; break;
  case cudaDevAttrMaxBlockDimZ: *v = 64; break;
  case cudaDevAttrMaxGridDimX: *v = 2147483647; break;
  case cudaDevAttrMaxGridDimY:
  case cudaDevAttrMaxGridDimZ: *v = 65535; break;
  case cudaDevAttrMaxSharedMemoryPerBlock: *v = 48 * 1024; break;
  case cudaDevAttrMaxSharedMemoryPerBlockOptin: *v = shared_per_block(); break;
  case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *v = shared_per_sm(); break;
  case cudaDevAttrWarpSize: *v = 32; break;
  case cudaDevAttrMultiProcessorCount: *v = sm_count(); break;
  case cudaDevAttrMaxThreadsPerMultiProcessor: *v = threads_per_sm(); break;
  case cudaDevAttrMaxRegistersPerBlock:
  case cudaDevAttrMaxRegistersPerMultiprocessor: *v = 65536; break;
  case cudaDevAttrComputeCapabilityMajor: *v = architecture() / 10; break;
  case cudaDevAttrComputeCapabilityMinor: *v = architecture() % 10; break;
  case cudaDevAttrUnifiedAddressing: *v = 1; break;
  case cudaDevAttrClockRate: *v = 1980000; break;
  case cudaDevAttrL2CacheSize: *v = 50 << 20; break;
  case cudaDevAttrMaxBlocksPerMultiprocessor: *v = 32; break;
  case cudaDevAttrMemoryPoolsSupported: *v = 0; break;
  case cudaDevAttrCooperativeLaunch: *v = 1; break;
  case cudaDevAttrMemoryClockRate: *v = 2619000; break;
  case cudaDevAttrGlobalMemoryBusWidth: *v = 5120; break;
  default: break;
  }
  return cudaSuccess;
}

API cudaGetDeviceProperties(cudaDeviceProp *p, int) {
  memset(p, 0, sizeof *p);
  snprintf(p->name, sizeof p->name, "ptxemu stand-in sm_%d", architecture());
  p->totalGlobalMem = TOTAL_MEMORY;
  p->sharedMemPerBlock = 48 * 1024;
  p->regsPerBlock = 65536;
  p->warpSize = 32;
  p->maxThreadsPerBlock = 1024;
  p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
  p->maxThreadsDim[2] = 64;
  p->maxGridSize[0] = 2147483647;
  p->maxGridSize[1] = p->maxGridSize[2] = 65535;
  p->totalConstMem = 65536;
  p->major = architecture() / 10;
  p->minor = architecture() % 10;
  p->textureAlignment = 512;
  p->multiProcessorCount = sm_count();
  p->unifiedAddressing = 1;
  p->memoryBusWidth = 5120;
  p->l2CacheSize = 50 << 20;
  p->maxThreadsPerMultiProcessor = threads_per_sm();
  p->sharedMemPerMultiprocessor = shared_per_sm();
  p->regsPerMultiprocessor = 65536;
  p->sharedMemPerBlockOptin = shared_per_block();
  p->maxBlocksPerMultiProcessor = 32;
  p->reservedSharedMemPerBlock = 1024;
  return cudaSuccess;
}

API cudaDeviceGetByPCIBusId(int *d, const char *) {
  *d = 0;
  return cudaSuccess;
}

API cudaDeviceSetLimit(cudaLimit, size_t) { return cudaSuccess; }

API cudaDeviceGetLimit(size_t *v, cudaLimit) {
  *v = 1 << 20;
  return cudaSuccess;
}

API cudaDeviceGetDefaultMemPool(cudaMemPool_t *p, int) {
  *p = (cudaMemPool_t)0x10;
  return cudaSuccess;
}

API cudaProfilerStart() { return cudaSuccess; }

API cudaProfilerStop() { return cudaSuccess; }
