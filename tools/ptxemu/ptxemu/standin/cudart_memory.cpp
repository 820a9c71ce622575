// Device memory is host memory, known to the emulator for its bounds checks.
#include "standin.hpp"

static size_t g_used;

static void *device_alloc(size_t bytes) {
  size_t rounded = (bytes + 511) & ~511ull;
  void *pointer = aligned_alloc(512, rounded ? rounded : 512);
  if (!pointer) return nullptr;
  bool poison = setting("PTXEMU_POISON", 1) && !listing(); // untouched memory takes no room
  if (bytes < (512u << 20) && poison) memset(pointer, 0xff, rounded);
  pe_register((uint64_t)pointer, bytes ? bytes : 1, 0);
  __atomic_add_fetch(&g_used, bytes, __ATOMIC_RELAXED);
  return pointer;
}

API cudaMalloc(void **pointer, size_t bytes) {
  if (cudaError_t error = forbid_during_capture("cudaMalloc")) return error;
  *pointer = bytes ? device_alloc(bytes) : nullptr;
  LOG("cudaMalloc %zu -> %p", bytes, *pointer);
  return *pointer || !bytes ? cudaSuccess : set_error(cudaErrorMemoryAllocation);
}

static cudaError_t device_free(void *pointer) {
  if (!pointer) return cudaSuccess;
  uint64_t bytes = pe_alloc_size((uint64_t)pointer);
  if (!bytes) {
    fprintf(stderr, "[ptxemu] cudaFree of unknown pointer %p\n", pointer);
    return set_error(cudaErrorInvalidValue);
  }
  pe_unregister((uint64_t)pointer);
  g_used -= bytes;
  free(pointer);
  return cudaSuccess;
}

API cudaFree(void *pointer) {
  if (cudaError_t error = pointer ? forbid_during_capture("cudaFree") : cudaSuccess) return error;
  return device_free(pointer);
}

API cudaMallocAsync(void **pointer, size_t bytes,
                    cudaStream_t) { // under capture the memory lives as long as the process
  *pointer = bytes ? device_alloc(bytes) : nullptr;
  return *pointer || !bytes ? cudaSuccess : set_error(cudaErrorMemoryAllocation);
}

API cudaFreeAsync(void *pointer, cudaStream_t stream) {
  std::lock_guard<std::recursive_mutex> guard(g_capture_mutex);
  return capture_of(stream) ? cudaSuccess : device_free(pointer);
}

API cudaMallocManaged(void **pointer, size_t bytes, unsigned) { return cudaMalloc(pointer, bytes); }

API cudaHostAlloc(void **pointer, size_t bytes, unsigned) { return cudaMalloc(pointer, bytes); }

API cudaMallocHost(void **pointer, size_t bytes) { return cudaMalloc(pointer, bytes); }

API cudaFreeHost(void *pointer) { return cudaFree(pointer); }

API cudaHostRegister(void *pointer, size_t bytes, unsigned) {
  pe_register((uint64_t)pointer, bytes, 0);
  return cudaSuccess;
}

API cudaHostUnregister(void *pointer) {
  pe_unregister((uint64_t)pointer);
  return cudaSuccess;
}

API cudaHostGetDevicePointer(void **device, void *host, unsigned) {
  *device = host;
  return cudaSuccess;
}

API cudaMemGetInfo(size_t *free_bytes, size_t *total) {
  *total = TOTAL_MEMORY;
  *free_bytes = TOTAL_MEMORY - g_used;
  return cudaSuccess;
}

static bool inside_allocation(const void *pointer, size_t bytes, const char *what) {
  uint64_t start, size;
  if (!bytes) return true;
  if (!pe_find_alloc((uint64_t)pointer, &start, &size) || (uint64_t)pointer + bytes > start + size) {
    fprintf(stderr, "[ptxemu] %s: [%p, +%zu) is not inside one device allocation\n", what, pointer, bytes);
    return false;
  }
  return true;
}

static cudaError_t copy(void *dst, const void *src, size_t bytes, cudaMemcpyKind kind) {
  if ((kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice) &&
      !inside_allocation(dst, bytes, "cudaMemcpy destination"))
    return set_error(cudaErrorInvalidValue);
  if ((kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice) &&
      !inside_allocation(src, bytes, "cudaMemcpy source"))
    return set_error(cudaErrorInvalidValue);
  memmove(dst, src, bytes);
  return cudaSuccess;
}

API cudaMemcpy(void *dst, const void *src, size_t bytes, cudaMemcpyKind kind) {
  if (cudaError_t error = forbid_during_capture("cudaMemcpy")) return error;
  return copy(dst, src, bytes, kind);
}

API cudaMemcpyAsync(void *dst, const void *src, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  return submit(stream, "cudaMemcpyAsync", [=] { return copy(dst, src, bytes, kind); });
}

API cudaMemcpyPeerAsync(void *dst, int, const void *src, int, size_t bytes, cudaStream_t stream) {
  return cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToDevice, stream);
}

static cudaError_t copy_2d(void *dst, size_t dst_pitch, const void *src, size_t src_pitch, size_t width,
                           size_t height, cudaMemcpyKind kind) {
  for (size_t i = 0; i < height; i++) {
    cudaError_t error = copy((char *)dst + i * dst_pitch, (const char *)src + i * src_pitch, width, kind);
    if (error) return error;
  }
  return cudaSuccess;
}

API cudaMemcpy2DAsync(void *dst, size_t dst_pitch, const void *src, size_t src_pitch, size_t width,
                      size_t height, cudaMemcpyKind kind, cudaStream_t stream) {
  return submit(stream, "cudaMemcpy2DAsync",
                [=] { return copy_2d(dst, dst_pitch, src, src_pitch, width, height, kind); });
}

API cudaMemcpy2D(void *dst, size_t dst_pitch, const void *src, size_t src_pitch, size_t width, size_t height,
                 cudaMemcpyKind kind) {
  if (cudaError_t error = forbid_during_capture("cudaMemcpy2D")) return error;
  return copy_2d(dst, dst_pitch, src, src_pitch, width, height, kind);
}

static cudaError_t fill(void *dst, int value, size_t bytes) {
  if (!inside_allocation(dst, bytes, "cudaMemset")) return set_error(cudaErrorInvalidValue);
  memset(dst, value, bytes);
  return cudaSuccess;
}

API cudaMemset(void *dst, int value, size_t bytes) {
  return submit(0, "cudaMemset", [=] { return fill(dst, value, bytes); });
}

API cudaMemsetAsync(void *dst, int value, size_t bytes, cudaStream_t stream) {
  return submit(stream, "cudaMemsetAsync", [=] { return fill(dst, value, bytes); });
}

API cudaPointerGetAttributes(cudaPointerAttributes *attributes, const void *pointer) {
  memset(attributes, 0, sizeof *attributes);
  uint64_t start, size;
  bool is_device = pe_find_alloc((uint64_t)pointer, &start, &size);
  attributes->type = is_device ? cudaMemoryTypeDevice : cudaMemoryTypeUnregistered;
  attributes->device = is_device ? 0 : -2;
  attributes->devicePointer = is_device ? (void *)pointer : nullptr;
  attributes->hostPointer = is_device ? nullptr : (void *)pointer;
  return cudaSuccess;
}
