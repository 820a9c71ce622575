// What the stand-in driver library (libcuda.so.1) uses of the stand-in runtime.
#pragma once
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <stdio.h>

extern "C" {
int ptxemu_module_load(const char *, void **);
int ptxemu_module_function(void *, const char *, void **);
int ptxemu_module_global(void *, const char *, void **, size_t *);
int ptxemu_launch(void *, dim3, dim3, size_t, cudaStream_t, const cudaLaunchAttribute *, unsigned, bool,
                  void **, void **);
int ptxemu_registers(void *);
int ptxemu_attributes(void *, cudaFuncAttributes *);
int ptxemu_max_dynamic_smem(void *, int);
int ptxemu_occupancy(void *, int, size_t);
}
