// wmma: matrix products with opaque fragments.
// Element e of a row-major matrix lives in lane (e / per) % 32, slot e % per; register copies beyond the
// matrix are unused.
#include "internal.hpp"
#include "matrix_elements.hpp"

#include <math.h>

static inline uint32_t *slot(V32 *r, int per, int e, int es, int &sub) {
  int lane = e / per, j = e % per;
  if (es == 4) {
    sub = -1;
    return (uint32_t *)&r[j] + lane;
  }
  sub = j & 1;
  return (uint32_t *)&r[j >> 1] + lane;
}

extern "C" void pe_wmma_mem(Warp *warp, P mask, int load, int rows, int cols, int col, int es, int n,
                            int shared, const void *addr, int64_t offset, const V32 *stride, V32 *r,
                            uint32_t line) {
  if (mask != ~0u) {
    if (mask) pe_error(warp, first(mask), line, "wmma executed by a partial warp");
    return;
  }
  int per = rows * cols / 32;
  uint32_t st = lane32(*stride, 0);
  uint64_t base =
      shared ? lane32(*(const V32 *)addr, 0) + (uint32_t)offset : lane64(*(const V64 *)addr, 0) + offset;
  if (load) memset(r, 0, n * sizeof(V32));
  for (int e = 0; e < rows * cols; e++) {
    int y = e / cols, x = e % cols, sub;
    uint64_t off = (uint64_t)(col ? x * st + y : y * st + x) * es;
    char *p = shared ? resolve_shared(warp, e / per, (uint32_t)(base + off), es, es, line, "wmma access")
                     : resolve_generic(warp, e / per, base + off, es, es, !load, line, "wmma access");
    if (!p) continue;
    uint32_t *s = slot(r, per, e, es, sub);
    if (load) {
      if (es == 4) memcpy(s, p, 4);
      else {
        uint16_t v;
        memcpy(&v, p, 2);
        *s |= (uint32_t)v << (16 * sub);
      }
    } else if (es == 4) memcpy(p, s, 4);
    else {
      uint16_t v = *s >> (16 * sub);
      memcpy(p, &v, 2);
    }
  }
}

extern "C" void pe_wmma(Warp *warp, P mask, int rows, int columns, int depth, int a_type, int c32, int d32,
                        const V32 *a, const V32 *b, const V32 *c, V32 *d, uint32_t line) {
  if (mask != ~0u) {
    if (mask) pe_error(warp, first(mask), line, "wmma executed by a partial warp");
    return;
  }
  worker_of(warp)->counters[COUNT_MMA]++;
  worker_of(warp)->counters[COUNT_MMA_MACS] += rows * columns * depth;
  static thread_local float A[32 * 16], B[32 * 16];
  V32 D[8];
  memset(D, 0, sizeof D);
  int sub;
  auto get = [&](const V32 *r, int per, int e) {
    uint32_t *s = slot((V32 *)r, per, e, 2, sub);
    uint16_t v = *s >> (16 * sub);
    return matrix_element(&v, a_type, 0);
  };
  for (int e = 0; e < rows * depth; e++) A[e] = get(a, rows * depth / 32, e);
  for (int e = 0; e < depth * columns; e++) B[e] = get(b, depth * columns / 32, e);
  int per = rows * columns / 32;
  for (int y = 0; y < rows; y++)
    for (int x = 0; x < columns; x++) {
      int e = y * columns + x;
      float s;
      uint32_t *q = slot((V32 *)c, per, e, c32 ? 4 : 2, sub);
      if (c32) memcpy(&s, q, 4);
      else s = h2f(*q >> (16 * sub));
      for (int k = 0; k < depth; k++) s = fmaf(A[y * depth + k], B[k * columns + x], s);
      q = slot(D, per, e, d32 ? 4 : 2, sub);
      if (d32) memcpy(q, &s, 4);
      else *q |= (uint32_t)f2h(s) << (16 * sub);
    }
  memcpy(d, D, (d32 ? per : per / 2) * sizeof(V32));
}
