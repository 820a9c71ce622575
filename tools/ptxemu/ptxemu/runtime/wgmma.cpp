// wgmma: matrix products of a warpgroup, executed at issue.
#include "internal.hpp"
#include "matrix_elements.hpp"

#include <math.h>

struct Desc {
  uint32_t start, lbo, sbo;
  int mode;
}; // mode: 0 none, 1 32B, 2 64B, 3 128B

static Desc dec(uint64_t d) {
  static const int md[] = {0, 3, 2, 1};
  return Desc{(uint32_t)(d & 0x3fff) << 4, (uint32_t)(d >> 16 & 0x3fff) << 4,
              (uint32_t)(d >> 32 & 0x3fff) << 4, md[d >> 62]};
}

// shared memory offset of the 16-byte chunk holding element (r, k); e = bytes per element. mn = operand is
// MN-major
static inline uint32_t chunk(const Desc &d, int r, int k, int e, bool mn) {
  uint32_t o;
  int width = d.mode ? 16 << d.mode : 16;
  if (!mn) {
    uint32_t kb = k * e;
    o = d.mode ? (r >> 3) * d.sbo + (r & 7) * width + kb
               : (r >> 3) * d.sbo + (kb >> 4) * d.lbo + (r & 7) * 16 + (kb & 15);
  } else {
    uint32_t per = width / e;
    o = d.mode ? (r / per) * d.lbo + (r % per) * e + (k & 7) * width + (k >> 3) * d.sbo
               : (r / per) * d.sbo + (r % per) * e + (k & 7) * 16 + (k >> 3) * d.lbo;
  }
  return swizzle_address(d.start + o, d.mode);
}

enum { WGMMA_LDB = 272 };

static inline void conv_elems(const char *p, int t, int n, float *o) { // n elements of type t
  if (t <= 1 && n == 8) {
#if defined(__AVX2__) && defined(__F16C__)
    __m128i x = _mm_loadu_si128((const __m128i *)p);
    _mm256_storeu_ps(o, t ? _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16))
                          : _mm256_cvtph_ps(x));
#else
    for (int i = 0; i < 8; i++) o[i] = t ? bf2f(((const uint16_t *)p)[i]) : h2f(((const uint16_t *)p)[i]);
#endif
    return;
  }
  for (int i = 0; i < n; i++) o[i] = matrix_element(p, t, i);
}

// C[16][16] += A[16][depth] * B[depth][16]
static void tile16(float (*C)[16], const float (*A)[32], const float *B, int depth) {
#ifdef PE_AVX512
  __m512 acc[16];
  for (int r = 0; r < 16; r++) acc[r] = _mm512_load_ps(C[r]);
  for (int k = 0; k < depth; k++) {
    __m512 b = _mm512_loadu_ps(B + k * WGMMA_LDB);
#pragma GCC unroll 16
    for (int r = 0; r < 16; r++) acc[r] = _mm512_fmadd_ps(_mm512_set1_ps(A[r][k]), b, acc[r]);
  }
  for (int r = 0; r < 16; r++) _mm512_store_ps(C[r], acc[r]);
#else
  for (int r = 0; r < 16; r++)
    for (int k = 0; k < depth; k++)
      for (int j = 0; j < 16; j++) C[r][j] = mac(A[r][k], B[k * WGMMA_LDB + j], C[r][j]);
#endif
}

extern "C" void pe_wgmma(Warp *warp, P mask, int n, int depth, int a_type, int b_type, int a_reg,
                         const void *areg, const V64 *ad, const V64 *bd, P scale_d, int scale_a, int scale_b,
                         int transpose_a, int transpose_b, int dtype, V32 *d, uint32_t line) {
  if (mask != ~0u) {
    if (mask) pe_error(warp, first(mask), line, "wgmma executed by a partial warp");
    return;
  }
  Cta *c = warp->cta;
  if (c->warp_count < 4 || (warp->wid & ~3u) + 4 > c->warp_count) {
    pe_error(warp, 0, line, "wgmma needs a full warpgroup of 4 warps");
    return;
  }
  uint64_t *cnt = worker_of(warp)->counters;
  if ((warp->wid & 3) == 0) cnt[COUNT_MMA]++;
  cnt[COUNT_MMA_MACS] += 16 * n * depth;
  int e = a_type <= 1 ? 2 : a_type == 2 ? 4 : 1, pc = 16 / e;
  bool is_integer = a_type == 3 || a_type == 4;
  uint32_t smax = c->smem_size;
  WarpAsyncState *async_state = (WarpAsyncState *)warp->wg;
  bool race = launch_of(warp)->options.race;
  bool bad = false;
  static thread_local float A[16][32];
  alignas(64) static thread_local float B[32][WGMMA_LDB];
  int r0 = 16 * (warp->wid & 3);
  auto fetch = [&](uint32_t o) -> const char * {
    if (o + 16 > smax) {
      if (!bad)
        pe_error(warp, 0, line, "wgmma operand at shared offset %u out of bounds (CTA has %u bytes)", o,
                 smax);
      bad = true;
      return nullptr;
    }
    if (race) async_state->reads.push_back({o & ~15u, 16, async_state->wgmma_committed, line});
    return c->smem + (o & ~15u);
  };
  if (a_reg) {
    const V32 *R = (const V32 *)areg;
    int per = 4 / e;
    for (int r = 0; r < 4; r++)
      for (int lane = 0; lane < 32; lane++) {
        float t[4];
        uint32_t v = lane32(R[r], lane);
        conv_elems((const char *)&v, a_type, per, t);
        for (int q = 0; q < per; q++)
          A[(lane >> 2) + 8 * (r & 1)][(r >> 1) * 4 * per + per * (lane & 3) + q] = t[q];
      }
  } else {
    Desc D = dec(lane64(*ad, 0));
    float t[16];
    if (!transpose_a) {
      for (int r = 0; r < 16; r++)
        for (int k = 0; k < depth; k += pc) {
          const char *p = fetch(chunk(D, r0 + r, k, e, false));
          if (!p) return;
          conv_elems(p, a_type, pc, &A[r][k]);
        }
    } else
      for (int k = 0; k < depth; k++)
        for (int r = 0; r < 16; r += pc) {
          const char *p = fetch(chunk(D, r0 + r, k, e, true));
          if (!p) return;
          conv_elems(p, a_type, pc, t);
          for (int q = 0; q < pc; q++) A[r + q][k] = t[q];
        }
  }
  Desc D = dec(lane64(*bd, 0));
  float t[16];
  if (!transpose_b) {
    for (int j = 0; j < n; j++)
      for (int k = 0; k < depth; k += pc) {
        const char *p = fetch(chunk(D, j, k, e, false));
        if (!p) return;
        conv_elems(p, b_type, pc, t);
        for (int q = 0; q < pc; q++) B[k + q][j] = t[q];
      }
  } else
    for (int k = 0; k < depth; k++)
      for (int j = 0; j < n; j += pc) {
        const char *p = fetch(chunk(D, j, k, e, true));
        if (!p) return;
        conv_elems(p, b_type, pc, &B[k][j]);
      }
  if (n & 15)
    for (int k = 0; k < depth; k++) memset(&B[k][n], 0, 32);
  float sc = (scale_a < 0 ? -1.f : 1.f) * (scale_b < 0 ? -1.f : 1.f);
  if (sc < 0)
    for (int r = 0; r < 16; r++)
      for (int k = 0; k < depth; k++) A[r][k] = -A[r][k];
  bool keep = scale_d & 1;
  alignas(64) float C[16][16];
  for (int j = 0; j < n; j += 16) {
    int nt = n - j >= 16 ? 2 : 1;
    memset(C, 0, sizeof C);
    auto reg = [&](int tt, int i) { return (uint32_t *)&d[((j >> 3) + tt) * 4 + i]; };
    if (keep && !is_integer)
      for (int tt = 0; tt < nt; tt++) {
        if (dtype == 2) {
          for (int i = 0; i < 4; i++) {
            const float *x = (const float *)reg(tt, i);
            for (int lane = 0; lane < 32; lane++)
              C[(lane >> 2) + 8 * (i >> 1)][tt * 8 + 2 * (lane & 3) + (i & 1)] = x[lane];
          }
        } else
          for (int i = 0; i < 2; i++) {
            const uint16_t *x = (const uint16_t *)&d[((j >> 3) + tt) * 2 + i];
            for (int lane = 0; lane < 32; lane++)
              for (int h = 0; h < 2; h++)
                C[(lane >> 2) + 8 * i][tt * 8 + 2 * (lane & 3) + h] = h2f(x[2 * lane + h]);
          }
      }
    tile16(C, A, &B[0][j], depth);
    for (int tt = 0; tt < nt; tt++) {
      if (is_integer) {
        for (int i = 0; i < 4; i++) {
          uint32_t *x = reg(tt, i);
          for (int lane = 0; lane < 32; lane++)
            x[lane] = (keep ? x[lane] : 0) +
                      (uint32_t)(int32_t)C[(lane >> 2) + 8 * (i >> 1)][tt * 8 + 2 * (lane & 3) + (i & 1)];
        }
      } else if (dtype == 2) {
        for (int i = 0; i < 4; i++) {
          float *x = (float *)reg(tt, i);
          for (int lane = 0; lane < 32; lane++)
            x[lane] = C[(lane >> 2) + 8 * (i >> 1)][tt * 8 + 2 * (lane & 3) + (i & 1)];
        }
      } else
        for (int i = 0; i < 2; i++) {
          uint16_t *x = (uint16_t *)&d[((j >> 3) + tt) * 2 + i];
          for (int lane = 0; lane < 32; lane++)
            for (int h = 0; h < 2; h++)
              x[2 * lane + h] = f2h(C[(lane >> 2) + 8 * i][tt * 8 + 2 * (lane & 3) + h]);
        }
    }
  }
}

extern "C" void pe_wgmma_commit(Warp *warp, P mask) {
  if (mask) ((WarpAsyncState *)warp->wg)->wgmma_committed++;
}

extern "C" void pe_wg_issue(Warp *warp, P mask, const uint16_t *ids, int n) {
  WarpAsyncState *async_state = (WarpAsyncState *)warp->wg;
  if (!mask || !launch_of(warp)->options.race) return;
  for (int i = 0; i < n; i++) async_state->in_flight[ids[i]] = async_state->wgmma_committed;
  warp->wg_pend = async_state->in_flight.size();
}

extern "C" void pe_wg_copy(Warp *warp, P mask, const uint16_t *dst, int nd, const uint16_t *src, int ns) {
  WarpAsyncState *async_state = (WarpAsyncState *)warp->wg;
  if (!mask) return;
  const uint32_t *g = nullptr;
  for (int i = 0; i < ns; i++) {
    auto it = async_state->in_flight.find(src[i]);
    if (it != async_state->in_flight.end() && (!g || it->second > *g)) g = &it->second;
  }
  uint32_t group = g ? *g : 0;
  for (int i = 0; i < nd; i++)
    if (g) async_state->in_flight[dst[i]] = group;
    else async_state->in_flight.erase(dst[i]);
  warp->wg_pend = async_state->in_flight.size();
}

extern "C" void pe_wg_read(Warp *warp, P mask, const uint16_t *ids, int n, uint32_t line) {
  WarpAsyncState *async_state = (WarpAsyncState *)warp->wg;
  for (int i = 0; mask && i < n; i++)
    if (async_state->in_flight.count(ids[i]))
      return pe_error(warp, first(mask), line,
                      "reads an accumulator of a wgmma in flight (no wgmma.wait_group since it was issued%s)",
                      async_state->in_flight[ids[i]] == async_state->wgmma_committed ? ", not even committed"
                                                                                     : "");
}

// operand reads are charged at the wait: a write in between by another warp is a race
extern "C" void pe_wgmma_wait(Warp *warp, P mask, int n) {
  WarpAsyncState *async_state = (WarpAsyncState *)warp->wg;
  if (!launch_of(warp)->options.race) return;
  size_t i = 0;
  for (; i < async_state->reads.size() && async_state->reads[i].group + n < async_state->wgmma_committed; i++)
    race_access(warp, 0, async_state->reads[i].offset, async_state->reads[i].bytes, false,
                async_state->reads[i].line);
  async_state->reads.erase(async_state->reads.begin(), async_state->reads.begin() + i);
  for (auto it = async_state->in_flight.begin(); it != async_state->in_flight.end();)
    it->second + n < async_state->wgmma_committed ? it = async_state->in_flight.erase(it) : ++it;
  warp->wg_pend = async_state->in_flight.size();
}
