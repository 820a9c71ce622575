// Counters of memory accesses: 32-byte sectors of global memory, wavefronts of shared memory.
#pragma once
#include "internal.hpp"

#include <algorithm>

static inline uint32_t sectors(const uint64_t *A, P mask, uint32_t bytes,
                               uint64_t *out) { // unique 32B sectors
  uint64_t tab[128];
  memset(tab, 0, sizeof tab);
  uint32_t n = 0;
  uint64_t prev = ~0ull;
  for (int lane : lanes(mask)) {
    for (uint64_t s = A[lane] >> 5, e = (A[lane] + bytes - 1) >> 5; s <= e; s++) {
      if (s == prev) continue;
      prev = s;
      uint32_t h = (s ^ s >> 7) & 127;
      while (tab[h] && tab[h] != s) h = (h + 1) & 127;
      if (!tab[h]) {
        tab[h] = s;
        out[n++] = s;
      }
    }
  }
  return n;
}

static inline void count_global(Warp *warp, const uint64_t *A, P mask, uint32_t bytes, bool contig,
                                bool write, Region *r) {
  Worker *worker = worker_of(warp);
  Launch *launch = launch_of(warp);
  if (!launch->options.count || (r && r->kind)) return;
  uint64_t *c = worker->counters;
  uint32_t n, nb = __builtin_popcount(mask) * bytes;
  uint64_t sl[96];
  if (bytes > 32) contig = false;
  uint8_t *map = r ? (write ? r->written_sectors : r->read_sectors) : nullptr;
  uint64_t base = r ? r->lo >> 5 : 0;
  if (contig) {
    uint64_t s0 = A[first(mask)] >> 5, s1 = (A[31 - __builtin_clz(mask)] + bytes - 1) >> 5;
    n = s1 - s0 + 1;
    if (map) memset(map + (s0 - base), 1, n);
  } else {
    n = sectors(A, mask, bytes, sl);
    if (map)
      for (uint32_t i = 0; i < n; i++) map[sl[i] - base] = 1;
  }
  if (write) c[COUNT_ST_GLOBAL_REQUESTS]++, c[COUNT_ST_GLOBAL_BYTES] += nb, c[COUNT_ST_GLOBAL_SECTORS] += n;
  else c[COUNT_LD_GLOBAL_REQUESTS]++, c[COUNT_LD_GLOBAL_BYTES] += nb, c[COUNT_LD_GLOBAL_SECTORS] += n;
}

static inline uint32_t waves(const uint32_t *off, P mask,
                             uint32_t bytes) { // shared memory wavefronts of one request
  uint32_t words = (bytes + 3) / 4, per = words >= 4 ? 8 : words == 2 ? 16 : 32, tot = 0;
  for (uint32_t h = 0; h < 32; h += per) {
    P mm = mask >> h & (per == 32 ? ~0u : (1u << per) - 1);
    if (!mm) continue;
    uint32_t seen[32][8], cnt[32];
    memset(cnt, 0, sizeof cnt);
    uint32_t highest = 0;
    for (int lane : lanes(mm)) {
      uint32_t o = off[h + lane] >> 2;
      for (uint32_t j = 0; j < words; j++) {
        uint32_t wd = o + j, bk = wd & 31, i;
        uint32_t lim = std::min(cnt[bk], 8u);
        for (i = 0; i < lim; i++)
          if (seen[bk][i] == wd) break;
        if (i == lim) {
          if (lim < 8) seen[bk][lim] = wd;
          highest = std::max(highest, ++cnt[bk]);
        }
      }
    }
    tot += std::max(highest, 1u);
  }
  return tot;
}
