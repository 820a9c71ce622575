// Errors of the runtime API: the last error, names and texts; functions that are not implemented.
#include "standin.hpp"

#include <dlfcn.h>

static thread_local cudaError_t t_last_error = cudaSuccess;

cudaError_t set_error(cudaError_t e) {
  if (e != cudaSuccess) t_last_error = e;
  return e;
}

extern "C" int ptxemu_unimplemented(const char *n) {
  fprintf(stderr, "[ptxemu] CUDA runtime function %s is not implemented by the stand-in\n", n);
  return set_error(cudaErrorNotSupported);
}

API cudaGetLastError() {
  cudaError_t e = t_last_error;
  t_last_error = cudaSuccess;
  return e;
}

API cudaPeekAtLastError() { return t_last_error; }

extern "C" const char *cudaGetErrorName(cudaError_t e) {
  static thread_local char b[32];
  switch (e) {
  case cudaSuccess: return "cudaSuccess";
  case cudaErrorLaunchFailure: return "cudaErrorLaunchFailure";
  case cudaErrorNoKernelImageForDevice: return "cudaErrorNoKernelImageForDevice";
  case cudaErrorNotSupported: return "cudaErrorNotSupported";
  case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
  case cudaErrorInvalidConfiguration: return "cudaErrorInvalidConfiguration";
  default: snprintf(b, sizeof b, "cudaError %d", (int)e); return b;
  }
}

extern "C" const char *cudaGetErrorString(cudaError_t e) {
  static thread_local char b[96];
  switch (e) {
  case cudaSuccess: return "no error";
  case cudaErrorLaunchFailure: return "kernel failed in the PTX emulator (see stderr)";
  case cudaErrorNoKernelImageForDevice: return "kernel has no PTX the emulator can run (see stderr)";
  case cudaErrorNotSupported: return "not implemented by the stand-in CUDA runtime (see stderr)";
  case cudaErrorMemoryAllocation: return "out of memory";
  case cudaErrorInvalidValue: return "invalid argument";
  case cudaErrorInvalidConfiguration: return "invalid configuration argument";
  case cudaErrorStreamCaptureUnsupported: return "operation not permitted when stream is capturing";
  case cudaErrorStreamCaptureInvalidated: return "operation failed due to a previous error during capture";
  case cudaErrorStreamCaptureUnjoined: return "capturing stream has unjoined work";
  case cudaErrorStreamCaptureImplicit:
    return "operation would make the legacy stream depend on a capturing blocking stream";
  case cudaErrorStreamCaptureIsolation: return "dependency created on uncaptured work in another stream";
  case cudaErrorCapturedEvent:
    return "operation not permitted on an event last recorded in a capturing stream";
  case cudaErrorCooperativeLaunchTooLarge: return "too many blocks in cooperative launch";
  default: snprintf(b, sizeof b, "CUDA error %d", (int)e); return b;
  }
}

API cudaGetDriverEntryPointByVersion(const char *s, void **f, unsigned, unsigned long long,
                                     cudaDriverEntryPointQueryResult *r) {
  *f = dlsym(RTLD_DEFAULT, s);
  if (!*f) {
    if (logging()) fprintf(stderr, "[ptxemu] driver entry point %s is not provided\n", s);
  }
  if (r) *r = *f ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  return cudaSuccess;
}

API cudaGetDriverEntryPoint(const char *s, void **f, unsigned long long fl,
                            cudaDriverEntryPointQueryResult *r) {
  return cudaGetDriverEntryPointByVersion(s, f, 0, fl, r);
}
