// ldmatrix, stmatrix, movmatrix: 8x8 matrices of 16-bit elements, one row per 16-byte address.
#include "internal.hpp"
#include "counting.hpp"

extern "C" void pe_ldmatrix(Warp *warp, P mask, const V32 *a, int64_t offset, int n, int trans, V32 *dst,
                            uint32_t line) {
  if (mask != ~0u) {
    if (mask) pe_error(warp, first(mask), line, "ldmatrix executed by a partial warp (mask 0x%08x)", mask);
    return;
  }
  uint32_t off[32];
  const uint32_t *A = (const uint32_t *)a;
  bool cnt = launch_of(warp)->options.count, race = launch_of(warp)->options.race;
  for (int i = 0; i < n; i++) {
    uint16_t t[8][8];
    for (int r = 0; r < 8; r++) {
      uint32_t o = A[i * 8 + r] + (uint32_t)offset;
      off[i * 8 + r] = o;
      char *p = resolve_shared(warp, i * 8 + r, o, 16, 16, line, "ldmatrix row");
      if (p) {
        memcpy(t[r], p, 16);
        if (race) race_access(warp, i * 8 + r, o, 16, false, line);
      } else memset(t[r], 0xff, 16);
    }
    uint32_t *D = (uint32_t *)&dst[i];
    if (!trans) memcpy(D, t, 128);
    else
      for (int r = 0; r < 8; r++)
        for (int c = 0; c < 4; c++) D[r * 4 + c] = t[2 * c][r] | (uint32_t)t[2 * c + 1][r] << 16;
    if (cnt) { worker_of(warp)->counters[COUNT_LDMATRIX_WAVEFRONTS] += waves(off, 0xffu << (8 * i), 16); }
  }
  if (cnt) worker_of(warp)->counters[COUNT_LDMATRIX_REQUESTS] += n;
}

extern "C" void pe_stmatrix(Warp *warp, P mask, const V32 *a, int64_t offset, int n, int trans,
                            const V32 *src, uint32_t line) {
  if (mask != ~0u) {
    if (mask) pe_error(warp, first(mask), line, "stmatrix executed by a partial warp (mask 0x%08x)", mask);
    return;
  }
  const uint32_t *A = (const uint32_t *)a;
  uint32_t off[32];
  for (int i = 0; i < n; i++) {
    uint16_t t[8][8];
    const uint32_t *D = (const uint32_t *)&src[i];
    if (!trans) memcpy(t, D, 128);
    else
      for (int r = 0; r < 8; r++)
        for (int c = 0; c < 4; c++) {
          t[2 * c][r] = D[r * 4 + c];
          t[2 * c + 1][r] = D[r * 4 + c] >> 16;
        }
    for (int r = 0; r < 8; r++) {
      uint32_t o = A[i * 8 + r] + (uint32_t)offset;
      off[i * 8 + r] = o;
      char *p = resolve_shared(warp, i * 8 + r, o, 16, 16, line, "stmatrix row");
      if (p) {
        memcpy(p, t[r], 16);
        if (launch_of(warp)->options.race) race_access(warp, i * 8 + r, o, 16, true, line);
      }
    }
    if (launch_of(warp)->options.count)
      worker_of(warp)->counters[COUNT_ST_SHARED_WAVEFRONTS] += waves(off, 0xffu << (8 * i), 16),
          worker_of(warp)->counters[COUNT_ST_SHARED_REQUESTS]++;
  }
}

extern "C" void pe_movmatrix(Warp *warp, P mask, const V32 *a, V32 *d, uint32_t line) {
  if (mask != ~0u) {
    if (mask) pe_error(warp, first(mask), line, "movmatrix executed by a partial warp");
    return;
  }
  uint16_t t[8][8];
  memcpy(t, a, 128);
  uint32_t *D = (uint32_t *)d;
  for (int r = 0; r < 8; r++)
    for (int c = 0; c < 4; c++) D[r * 4 + c] = t[2 * c][r] | (uint32_t)t[2 * c + 1][r] << 16;
}
