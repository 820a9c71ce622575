// Loads and stores of global, shared and local memory, with checks and counters.
#include "internal.hpp"
#include "counting.hpp"

template <int ES> struct ElT;

template <> struct ElT<1> {
  typedef uint8_t T;
  typedef uint16_t C;
};

template <> struct ElT<2> {
  typedef uint16_t T;
  typedef uint16_t C;
};

template <> struct ElT<4> {
  typedef uint32_t T;
  typedef uint32_t C;
};

template <> struct ElT<8> {
  typedef uint64_t T;
  typedef uint64_t C;
};

// ---- global / generic
struct Addr {
  alignas(64) uint64_t A[32];
  bool contig;
  uint64_t lo, hi;
  uint64_t misal;
};

static inline void prep(Addr &x, const V64 *a, int64_t offset, P mask, uint32_t bytes) {
  V64 v = add64(*a, bc64((uint64_t)offset));
  *(V64 *)x.A = v;
  int f = first(mask);
  uint64_t a0 = x.A[f];
  V64 active = sel64(mask, v, bc64(a0));
  x.lo = rmin_u64(active);
  x.hi = rmax_u64(active) + bytes;
  x.misal = ror_u64(active);
  V64 ex = add64(bc64(a0 - (uint64_t)f * bytes), mullo64(zx64(pe_iota), bc64(bytes)));
  x.contig = (cmp_u64<0>(v, ex) & mask) == mask;
}

static inline Region *fast_region(Warp *warp, const Addr &x, uint32_t line) {
  SiteCache &s = worker_of(warp)->site_cache[line & 255];
  if (x.lo >= s.lo && x.hi <= s.hi) return s.region;
  Region *r = find_region(launch_of(warp), x.lo, 1);
  if (r && x.hi <= r->hi) {
    s.lo = r->lo;
    s.hi = r->hi;
    s.region = r;
    return r;
  }
  return nullptr;
}

template <int ES, int NV>
static void lds_impl(Warp *warp, P mask, const V32 *a, int64_t offset, void *dst, uint32_t line);
template <int ES, int NV>
static void sts_impl(Warp *warp, P mask, const V32 *a, int64_t offset, const void *src, uint32_t line);

template <int ES, int NV>
static void ldg_impl(Warp *warp, P mask, const V64 *a, int64_t offset, void *dst, uint32_t line) {
  typedef typename ElT<ES>::T T;
  typedef typename ElT<ES>::C C;
  constexpr uint32_t SZ = ES * NV;
  if (!mask) return;
  Addr x;
  prep(x, a, offset, mask, SZ);
  C *d = (C *)dst;
  if (!(x.misal & (SZ - 1)))
    if (Region *r = fast_region(warp, x, line)) {
      count_global(warp, x.A, mask, SZ, x.contig, false, r);
      if (NV == 1 && x.contig && mask == ~0u && ES > 1) {
        memcpy(dst, (void *)x.A[0], 32 * ES);
        return;
      }
      for (int lane : lanes(mask)) {
        const volatile T *p = (const volatile T *)x.A[lane];
        for (int v = 0; v < NV; v++) d[v * 32 + lane] = p[v];
      }
      return;
    }
  uint32_t off[32];
  P sm = 0, global_lanes = 0;
  Region *rl = nullptr;
  for (int lane : lanes(mask)) {
    uint32_t shared_offset;
    Region *r;
    char *p = resolve_generic(warp, lane, x.A[lane], SZ, SZ, false, line, "load", &r, &shared_offset);
    if (p && shared_offset != ~0u) {
      off[lane] = shared_offset;
      sm |= 1u << lane;
      continue;
    }
    if (p && r) global_lanes |= 1u << lane, rl = r;
    for (int v = 0; v < NV; v++) d[v * 32 + lane] = p ? (C)((const volatile T *)p)[v] : (C) ~(C)0;
  }
  if (global_lanes) {
    count_global(warp, x.A, global_lanes, SZ, false, false, nullptr);
    if (launch_of(warp)->options.count >= 2)
      for (int lane : lanes(global_lanes)) {
        Region *r = find_region(launch_of(warp), x.A[lane], SZ);
        if (r && r->read_sectors)
          for (uint64_t s = x.A[lane] >> 5; s <= (x.A[lane] + SZ - 1) >> 5; s++)
            r->read_sectors[s - (r->lo >> 5)] = 1;
      }
  }
  (void)rl;
  if (sm) {
    V32 o;
    memcpy(&o, off, sizeof o);
    alignas(64) char tmp[NV * 256];
    lds_impl<ES, NV>(warp, sm, &o, 0, tmp, line);
    for (int lane : lanes(sm)) {
      for (int v = 0; v < NV; v++) d[v * 32 + lane] = ((C *)tmp)[v * 32 + lane];
    }
  }
}

template <int ES, int NV>
static void stg_impl(Warp *warp, P mask, const V64 *a, int64_t offset, const void *src, uint32_t line) {
  typedef typename ElT<ES>::T T;
  typedef typename ElT<ES>::C C;
  constexpr uint32_t SZ = ES * NV;
  if (!mask) return;
  Addr x;
  prep(x, a, offset, mask, SZ);
  const C *d = (const C *)src;
  if (!(x.misal & (SZ - 1)))
    if (Region *r = fast_region(warp, x, line))
      if (r->kind == 0) {
        count_global(warp, x.A, mask, SZ, x.contig, true, r);
        if (NV == 1 && x.contig && mask == ~0u && ES > 1) {
          memcpy((void *)x.A[0], src, 32 * ES);
          return;
        }
        for (int lane : lanes(mask)) {
          volatile T *p = (volatile T *)x.A[lane];
          for (int v = 0; v < NV; v++) p[v] = (T)d[v * 32 + lane];
        }
        return;
      }
  uint32_t off[32];
  P sm = 0, global_lanes = 0;
  for (int lane : lanes(mask)) {
    uint32_t shared_offset;
    Region *r;
    char *p = resolve_generic(warp, lane, x.A[lane], SZ, SZ, true, line, "store", &r, &shared_offset);
    if (p && shared_offset != ~0u) {
      off[lane] = shared_offset;
      sm |= 1u << lane;
      continue;
    }
    if (p && r) global_lanes |= 1u << lane;
    if (p)
      for (int v = 0; v < NV; v++) ((volatile T *)p)[v] = (T)d[v * 32 + lane];
  }
  if (global_lanes) {
    count_global(warp, x.A, global_lanes, SZ, false, true, nullptr);
    if (launch_of(warp)->options.count >= 2)
      for (int lane : lanes(global_lanes)) {
        Region *r = find_region(launch_of(warp), x.A[lane], SZ);
        if (r && r->written_sectors)
          for (uint64_t s = x.A[lane] >> 5; s <= (x.A[lane] + SZ - 1) >> 5; s++)
            r->written_sectors[s - (r->lo >> 5)] = 1;
      }
  }
  if (sm) {
    V32 o;
    memcpy(&o, off, sizeof o);
    sts_impl<ES, NV>(warp, sm, &o, 0, src, line);
  }
}

// ---- shared
struct SAddr {
  alignas(64) uint32_t A[32];
  bool contig, ok;
};

static inline void sprep(Warp *warp, SAddr &x, const V32 *a, int64_t offset, P mask, uint32_t bytes) {
  V32 v = add32(*a, bc32((uint32_t)offset));
  *(V32 *)x.A = v;
  int f = first(mask);
  uint32_t a0 = x.A[f];
  V32 s = sel32(mask, v, bc32(a0));
  uint32_t highest = rmax_u32(s), orr = ror_u32(s);
  x.ok = (uint64_t)highest + bytes <= warp->cta->smem_size && !(orr & (bytes - 1));
  V32 ex = add32(bc32(a0 - f * bytes), mullo32(pe_iota, bc32(bytes)));
  x.contig = (cmp_u32<0>(v, ex) & mask) == mask;
}

static inline void count_shared(Warp *warp, const uint32_t *A, P mask, uint32_t bytes, bool contig,
                                bool write) {
  Worker *worker = worker_of(warp);
  if (!worker->launch->options.count) return;
  uint32_t n;
  if (contig && mask == ~0u && bytes <= 16) n = bytes <= 4 ? 1 : bytes / 4;
  else n = waves(A, mask, bytes);
  if (write) worker->counters[COUNT_ST_SHARED_REQUESTS]++, worker->counters[COUNT_ST_SHARED_WAVEFRONTS] += n;
  else worker->counters[COUNT_LD_SHARED_REQUESTS]++, worker->counters[COUNT_LD_SHARED_WAVEFRONTS] += n;
}

template <int ES, int NV>
static void lds_impl(Warp *warp, P mask, const V32 *a, int64_t offset, void *dst, uint32_t line) {
  typedef typename ElT<ES>::T T;
  typedef typename ElT<ES>::C C;
  constexpr uint32_t SZ = ES * NV;
  if (!mask) return;
  SAddr x;
  sprep(warp, x, a, offset, mask, SZ);
  C *d = (C *)dst;
  char *sm = warp->cta->smem;
  if (warp->cta->launch->options.race)
    for (int lane : lanes(mask)) {
      uint32_t o = x.A[lane];
      if (o + SZ <= warp->cta->smem_size) race_access(warp, lane, o, SZ, false, line);
    }
  if (x.ok) {
    count_shared(warp, x.A, mask, SZ, x.contig, false);
    if (NV == 1 && ES > 1 && x.contig && mask == ~0u) {
      memcpy(dst, sm + x.A[0], 32 * ES);
      return;
    }
    for (int lane : lanes(mask)) {
      const T *p = (const T *)(sm + x.A[lane]);
      for (int v = 0; v < NV; v++) d[v * 32 + lane] = p[v];
    }
    return;
  }
  for (int lane : lanes(mask)) {
    const T *p = (const T *)resolve_shared(warp, lane, x.A[lane], SZ, SZ, line, "shared load");
    for (int v = 0; v < NV; v++) d[v * 32 + lane] = p ? (C)p[v] : (C) ~(C)0;
  }
}

template <int ES, int NV>
static void sts_impl(Warp *warp, P mask, const V32 *a, int64_t offset, const void *src, uint32_t line) {
  typedef typename ElT<ES>::T T;
  typedef typename ElT<ES>::C C;
  constexpr uint32_t SZ = ES * NV;
  if (!mask) return;
  SAddr x;
  sprep(warp, x, a, offset, mask, SZ);
  const C *d = (const C *)src;
  char *sm = warp->cta->smem;
  if (warp->cta->launch->options.race)
    for (int lane : lanes(mask)) {
      uint32_t o = x.A[lane];
      if (o + SZ <= warp->cta->smem_size) race_access(warp, lane, o, SZ, true, line);
    }
  if (x.ok) {
    count_shared(warp, x.A, mask, SZ, x.contig, true);
    if (NV == 1 && ES > 1 && x.contig && mask == ~0u) {
      memcpy(sm + x.A[0], src, 32 * ES);
      return;
    }
    for (int lane : lanes(mask)) {
      T *p = (T *)(sm + x.A[lane]);
      for (int v = 0; v < NV; v++) p[v] = (T)d[v * 32 + lane];
    }
    return;
  }
  for (int lane : lanes(mask)) {
    T *p = (T *)resolve_shared(warp, lane, x.A[lane], SZ, SZ, line, "shared store");
    if (p)
      for (int v = 0; v < NV; v++) p[v] = (T)d[v * 32 + lane];
  }
}

// ---- local (per-thread)
template <int ES, int NV>
static void ldl_impl(Warp *warp, P mask, const V32 *a, int64_t offset, void *dst, uint32_t line) {
  typedef typename ElT<ES>::T T;
  typedef typename ElT<ES>::C C;
  constexpr uint32_t SZ = ES * NV;
  C *d = (C *)dst;
  const uint32_t *A = (const uint32_t *)a;
  uint32_t st = warp->local_stride;
  for (int lane : lanes(mask)) {
    uint32_t o = A[lane] + (uint32_t)offset;
    bool ok = (uint64_t)o + SZ <= st && !(o & (SZ - 1));
    if (!ok)
      pe_error(warp, lane, line, "local load of %u bytes at offset %u out of bounds or misaligned (%u bytes)",
               SZ, o, st);
    const T *p = (const T *)(warp->local_base + (size_t)lane * st + o);
    for (int v = 0; v < NV; v++) d[v * 32 + lane] = ok ? (C)p[v] : (C)0;
  }
}

template <int ES, int NV>
static void stl_impl(Warp *warp, P mask, const V32 *a, int64_t offset, const void *src, uint32_t line) {
  typedef typename ElT<ES>::T T;
  typedef typename ElT<ES>::C C;
  constexpr uint32_t SZ = ES * NV;
  const C *d = (const C *)src;
  const uint32_t *A = (const uint32_t *)a;
  uint32_t st = warp->local_stride;
  for (int lane : lanes(mask)) {
    uint32_t o = A[lane] + (uint32_t)offset;
    if ((uint64_t)o + SZ > st || (o & (SZ - 1))) {
      pe_error(warp, lane, line,
               "local store of %u bytes at offset %u out of bounds or misaligned (%u bytes)", SZ, o, st);
      continue;
    }
    T *p = (T *)(warp->local_base + (size_t)lane * st + o);
    for (int v = 0; v < NV; v++) p[v] = (T)d[v * 32 + lane];
  }
}

#define DEF_MEM(es, vector_length) \
  extern "C" void pe_ldg_##es##_##vector_length(Warp *warp, P mask, const V64 *a, int64_t i, void *d, \
                                                uint32_t ln) { \
    ldg_impl<es, vector_length>(warp, mask, a, i, d, ln); \
  } \
  extern "C" void pe_stg_##es##_##vector_length(Warp *warp, P mask, const V64 *a, int64_t i, const void *d, \
                                                uint32_t ln) { \
    stg_impl<es, vector_length>(warp, mask, a, i, d, ln); \
  } \
  extern "C" void pe_lds_##es##_##vector_length(Warp *warp, P mask, const V32 *a, int64_t i, void *d, \
                                                uint32_t ln) { \
    lds_impl<es, vector_length>(warp, mask, a, i, d, ln); \
  } \
  extern "C" void pe_sts_##es##_##vector_length(Warp *warp, P mask, const V32 *a, int64_t i, const void *d, \
                                                uint32_t ln) { \
    sts_impl<es, vector_length>(warp, mask, a, i, d, ln); \
  } \
  extern "C" void pe_ldl_##es##_##vector_length(Warp *warp, P mask, const V32 *a, int64_t i, void *d, \
                                                uint32_t ln) { \
    ldl_impl<es, vector_length>(warp, mask, a, i, d, ln); \
  } \
  extern "C" void pe_stl_##es##_##vector_length(Warp *warp, P mask, const V32 *a, int64_t i, const void *d, \
                                                uint32_t ln) { \
    stl_impl<es, vector_length>(warp, mask, a, i, d, ln); \
  }
FOR_MEM(DEF_MEM)
