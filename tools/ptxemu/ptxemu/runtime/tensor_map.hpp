// Emulator's own 128-byte tensor map (opaque CUtensorMap contents).
#pragma once
#include <stdint.h>

// fields of tensormap.replace, in the order of ptxemu/lower/instructions/async_copy.py
enum TensorMapField {
  MAP_ADDRESS,
  MAP_RANK,
  MAP_BOX,
  MAP_DIM,
  MAP_STRIDE,
  MAP_ELEMENT_STRIDE,
  MAP_ELEMENT_TYPE,
  MAP_INTERLEAVE,
  MAP_SWIZZLE,
  MAP_FILL
};

struct TensorMap {
  uint32_t magic;
  uint8_t rank, element_bytes, interleave, swizzle, nan_out_of_bounds, im2col, element_stride[5], dtype;
  uint64_t addr;
  uint64_t dim[5];
  uint64_t stride[4];
  uint16_t box[5];
  int8_t lower[3], upper[3];
  uint16_t channels, pixels;
};

enum { TENSOR_MAP_MAGIC = 0x70414d54 };

// address of a byte after the swizzle of 32, 64 or 128 bytes (mode 1, 2, 3)
static inline uint32_t swizzle_address(uint32_t a, int mode) {
  return mode == 3   ? a ^ ((a >> 7 & 7) << 4)
         : mode == 2 ? a ^ ((a >> 7 & 3) << 4)
         : mode == 1 ? a ^ ((a >> 7 & 1) << 4)
                     : a;
}

static_assert(sizeof(TensorMap) <= 128, "tensor map size");
