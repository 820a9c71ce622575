// Tensor maps built on the device: tensormap.replace fills in fields of zeroed memory.
#include "internal.hpp"

extern "C" void pe_tensormap_replace(Warp *warp, P mask, int shared, const void *addr, int64_t offset,
                                     int field, int ord, const V64 *val, uint32_t line) {
  static const uint8_t element_bytes[] = {1, 2, 4, 4, 8, 8, 2, 4, 4, 8, 2, 4, 4};
  for (int lane : lanes(mask)) {
    char *p = shared ? resolve_shared(warp, lane, lane32(*(const V32 *)addr, lane) + (uint32_t)offset,
                                      sizeof(TensorMap), 64, line, "tensormap.replace")
                     : resolve_generic(warp, lane, lane64(*(const V64 *)addr, lane) + offset,
                                       sizeof(TensorMap), 64, true, line, "tensormap.replace");
    if (!p) continue;
    TensorMap t;
    memcpy(&t, p, sizeof t);
    uint64_t v = lane64(*val, lane);
    t.magic = TENSOR_MAP_MAGIC;
    switch (field) {
    case MAP_ADDRESS: t.addr = v; break;
    case MAP_RANK: t.rank = v + 1; break;
    case MAP_BOX: t.box[ord] = v; break;
    case MAP_DIM: t.dim[ord] = (uint32_t)v; break;
    case MAP_STRIDE: t.stride[ord] = v; break;
    case MAP_ELEMENT_STRIDE: t.element_stride[ord] = v; break;
    case MAP_ELEMENT_TYPE:
      if (v >= sizeof element_bytes) {
        pe_error(warp, lane, line, "tensormap.replace: unsupported element type %llu", (unsigned long long)v);
        continue;
      }
      t.dtype = v;
      t.element_bytes = element_bytes[v];
      break;
    case MAP_INTERLEAVE: t.interleave = v; break;
    case MAP_SWIZZLE: t.swizzle = v; break;
    case MAP_FILL: t.nan_out_of_bounds = v; break;
    }
    memcpy(p, &t, sizeof t);
  }
}

extern "C" void pe_tensormap_copy(Warp *warp, P mask, const V64 *dst, int64_t dst_offset, const V32 *src,
                                  int64_t src_offset, uint32_t line) {
  if (!mask) return;
  int lane = first(mask);
  char *s = resolve_shared(warp, lane, lane32(*src, lane) + (uint32_t)src_offset, 128, 128, line,
                           "tensormap copy source");
  char *d = resolve_generic(warp, lane, lane64(*dst, lane) + dst_offset, 128, 128, true, line,
                            "tensormap copy destination");
  if (s && d) memcpy(d, s, 128);
}
