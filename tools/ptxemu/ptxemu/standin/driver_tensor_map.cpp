// cuTensorMapEncode*: tensor maps in the emulator's layout.
#include "tensor_map.hpp"

#include <cuda.h>
#include <stdio.h>
#include <string.h>

extern "C" {
CUresult cuTensorMapEncodeTiled(CUtensorMap *t, CUtensorMapDataType dt, cuuint32_t rank, void *addr,
                                const cuuint64_t *dim, const cuuint64_t *stride, const cuuint32_t *box,
                                const cuuint32_t *estr, CUtensorMapInterleave il, CUtensorMapSwizzle sw,
                                CUtensorMapL2promotion, CUtensorMapFloatOOBfill oob) {
  static const uint8_t es[] = {1, 2, 4, 4, 8, 8, 2, 4, 8, 2, 4, 4, 4};
  if (rank < 1 || rank > 5 || (int)dt >= 13 || il != CU_TENSOR_MAP_INTERLEAVE_NONE || ((uint64_t)addr & 15)) {
    fprintf(stderr, "[ptxemu] cuTensorMapEncodeTiled: unsupported or invalid arguments\n");
    return CUDA_ERROR_INVALID_VALUE;
  }
  TensorMap m;
  memset(&m, 0, sizeof m);
  m.magic = TENSOR_MAP_MAGIC;
  m.rank = rank;
  m.element_bytes = es[dt];
  m.dtype = dt;
  m.swizzle = sw;
  m.nan_out_of_bounds = oob;
  m.addr = (uint64_t)addr;
  for (unsigned i = 0; i < rank; i++) {
    if (!dim[i] || box[i] < 1 || box[i] > 256 || estr[i] < 1 || estr[i] > 8) return CUDA_ERROR_INVALID_VALUE;
    m.dim[i] = dim[i];
    m.box[i] = box[i];
    m.element_stride[i] = estr[i];
    if (i) {
      if (stride[i - 1] & 15) return CUDA_ERROR_INVALID_VALUE;
      m.stride[i - 1] = stride[i - 1];
    }
  }
  uint32_t inner = box[0] * m.element_bytes;
  if (inner & 15) return CUDA_ERROR_INVALID_VALUE;
  if (sw >= 1 && sw <= 3 && inner > (16u << sw)) {
    fprintf(stderr, "[ptxemu] cuTensorMapEncodeTiled: inner box of %u bytes exceeds the swizzle span\n",
            inner);
    return CUDA_ERROR_INVALID_VALUE;
  }
  memset(t, 0, sizeof *t);
  memcpy(t, &m, sizeof m);
  return CUDA_SUCCESS;
}

CUresult cuTensorMapEncodeIm2col(CUtensorMap *t, CUtensorMapDataType dt, cuuint32_t rank, void *addr,
                                 const cuuint64_t *dim, const cuuint64_t *stride, const int *lo,
                                 const int *up, cuuint32_t ch, cuuint32_t px, const cuuint32_t *estr,
                                 CUtensorMapInterleave il, CUtensorMapSwizzle sw, CUtensorMapL2promotion l2,
                                 CUtensorMapFloatOOBfill oob) {
  cuuint32_t box[5] = {ch, 1, 1, 1, 1};
  if (rank < 3) return CUDA_ERROR_INVALID_VALUE;
  CUresult r = cuTensorMapEncodeTiled(t, dt, rank, addr, dim, stride, box, estr, il, sw, l2, oob);
  if (r) return r;
  TensorMap *m = (TensorMap *)t;
  m->im2col = 1;
  m->channels = ch;
  m->pixels = px;
  for (unsigned i = 0; i < rank - 2; i++) {
    m->lower[i] = lo[i];
    m->upper[i] = up[i];
  }
  return CUDA_SUCCESS;
}
}
