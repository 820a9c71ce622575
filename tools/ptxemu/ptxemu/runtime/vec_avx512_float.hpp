// Lane vectors in AVX-512 registers: floating point, comparisons, conversions, reductions.  Included by
// vec_avx512.hpp.
#pragma once
// ---- f32 / f64 arithmetic; R = rounding (0 rn, 3 rz, 1 rm, 2 rp as in _MM_FROUND_*)
#define RM(R) ((R) | _MM_FROUND_NO_EXC)
#define FBIN(name, ps, pd) \
  template <int R> AI V32 name##_f32(V32 x, V32 y) { \
    V32 r; \
    r.a = (u32v)ps(F512(x.a), F512(y.a), RM(R)); \
    r.b = (u32v)ps(F512(x.b), F512(y.b), RM(R)); \
    return r; \
  } \
  template <int R> AI V64 name##_f64(V64 x, V64 y) { \
    V64 r; \
    r.a = (u64v)pd(D512(x.a), D512(y.a), RM(R)); \
    r.b = (u64v)pd(D512(x.b), D512(y.b), RM(R)); \
    r.c = (u64v)pd(D512(x.c), D512(y.c), RM(R)); \
    r.d = (u64v)pd(D512(x.d), D512(y.d), RM(R)); \
    return r; \
  }

FBIN(add, _mm512_add_round_ps, _mm512_add_round_pd)

FBIN(sub, _mm512_sub_round_ps, _mm512_sub_round_pd)
FBIN(mul, _mm512_mul_round_ps, _mm512_mul_round_pd)

FBIN(div, _mm512_div_round_ps, _mm512_div_round_pd) template <int R> AI V32 fma_f32(V32 x, V32 y, V32 z) {
  V32 r;
  r.a = (u32v)_mm512_fmadd_round_ps(F512(x.a), F512(y.a), F512(z.a), RM(R));
  r.b = (u32v)_mm512_fmadd_round_ps(F512(x.b), F512(y.b), F512(z.b), RM(R));
  return r;
}

template <int R> AI V64 fma_f64(V64 x, V64 y, V64 z) {
  V64 r;
  r.a = (u64v)_mm512_fmadd_round_pd(D512(x.a), D512(y.a), D512(z.a), RM(R));
  r.b = (u64v)_mm512_fmadd_round_pd(D512(x.b), D512(y.b), D512(z.b), RM(R));
  r.c = (u64v)_mm512_fmadd_round_pd(D512(x.c), D512(y.c), D512(z.c), RM(R));
  r.d = (u64v)_mm512_fmadd_round_pd(D512(x.d), D512(y.d), D512(z.d), RM(R));
  return r;
}

template <int R> AI V32 sqrt_f32(V32 x) {
  V32 r;
  r.a = (u32v)_mm512_sqrt_round_ps(F512(x.a), RM(R));
  r.b = (u32v)_mm512_sqrt_round_ps(F512(x.b), RM(R));
  return r;
}

template <int R> AI V64 sqrt_f64(V64 x) {
  V64 r;
  r.a = (u64v)_mm512_sqrt_round_pd(D512(x.a), RM(R));
  r.b = (u64v)_mm512_sqrt_round_pd(D512(x.b), RM(R));
  r.c = (u64v)_mm512_sqrt_round_pd(D512(x.c), RM(R));
  r.d = (u64v)_mm512_sqrt_round_pd(D512(x.d), RM(R));
  return r;
}

AI __m512 minps(__m512 p, __m512 q) {
  __mmask16 n = _mm512_cmp_ps_mask(p, p, _CMP_UNORD_Q);
  return _mm512_mask_mov_ps(_mm512_min_ps(q, p), n, q);
}

AI __m512 maxps(__m512 p, __m512 q) {
  __mmask16 n = _mm512_cmp_ps_mask(p, p, _CMP_UNORD_Q);
  return _mm512_mask_mov_ps(_mm512_max_ps(q, p), n, q);
}

// IEEE minNum: a NaN operand yields the other one. _mm512_min_ps(q,p) returns p when q is NaN.
BIN32(min_f32, f32v, minps(F512(p), F512(q)))

BIN32(max_f32, f32v, maxps(F512(p), F512(q))) AI __m512 nanps(__m512 p, __m512 q, __m512 v) {
  return _mm512_mask_mov_ps(v, _mm512_cmp_ps_mask(p, q, _CMP_UNORD_Q),
                            _mm512_castsi512_ps(_mm512_set1_epi32(0x7fffffff)));
}
BIN32(minnan_f32, f32v, nanps(F512(p), F512(q), minps(F512(p), F512(q))))

BIN32(maxnan_f32, f32v, nanps(F512(p), F512(q), maxps(F512(p), F512(q))))

AI __m512d minpd(__m512d p, __m512d q) {
  __mmask8 n = _mm512_cmp_pd_mask(p, p, _CMP_UNORD_Q);
  return _mm512_mask_mov_pd(_mm512_min_pd(q, p), n, q);
}

AI __m512d maxpd(__m512d p, __m512d q) {
  __mmask8 n = _mm512_cmp_pd_mask(p, p, _CMP_UNORD_Q);
  return _mm512_mask_mov_pd(_mm512_max_pd(q, p), n, q);
}
BIN64(min_f64, f64v, minpd(D512(p), D512(q)))

BIN64(max_f64, f64v, maxpd(D512(p), D512(q)))

UN32(abs_f32, u32v, p & 0x7fffffffu)

UN64(abs_f64, u64v, p & 0x7fffffffffffffffull)

UN32(neg_f32, u32v, p ^ 0x80000000u)

UN64(neg_f64, u64v, p ^ 0x8000000000000000ull) AI __m512 ftzps(__m512 p) {
  __m512i e = _mm512_and_epi32(I512(p), _mm512_set1_epi32(0x7f800000));
  return _mm512_castsi512_ps(_mm512_mask_and_epi32(
      I512(p), _mm512_cmpeq_epi32_mask(e, _mm512_setzero_si512()), I512(p), _mm512_set1_epi32(0x80000000)));
}
UN32(ftz, f32v, ftzps(F512(p)))

// ---- compares -> lane mask
template <int C> AI P cmp_s32(V32 x, V32 y) {
  return (P)_mm512_cmp_epi32_mask(I512(x.a), I512(y.a), C) | (P)_mm512_cmp_epi32_mask(I512(x.b), I512(y.b), C)
                                                                 << 16;
}

template <int C> AI P cmp_u32(V32 x, V32 y) {
  return (P)_mm512_cmp_epu32_mask(I512(x.a), I512(y.a), C) | (P)_mm512_cmp_epu32_mask(I512(x.b), I512(y.b), C)
                                                                 << 16;
}

template <int C> AI P cmp_f32(V32 x, V32 y) {
  return (P)_mm512_cmp_ps_mask(F512(x.a), F512(y.a), C) | (P)_mm512_cmp_ps_mask(F512(x.b), F512(y.b), C)
                                                              << 16;
}

template <int C> AI P cmp_s16(V16 x, V16 y) { return (P)_mm512_cmp_epi16_mask(I512(x.a), I512(y.a), C); }

template <int C> AI P cmp_u16(V16 x, V16 y) { return (P)_mm512_cmp_epu16_mask(I512(x.a), I512(y.a), C); }

#define CMP64(name, f, K) \
  template <int C> AI P name(V64 x, V64 y) { \
    return (P)f(K(x.a), K(y.a), C) | (P)f(K(x.b), K(y.b), C) << 8 | (P)f(K(x.c), K(y.c), C) << 16 | \
           (P)f(K(x.d), K(y.d), C) << 24; \
  }
CMP64(cmp_s64, _mm512_cmp_epi64_mask, I512)

CMP64(cmp_u64, _mm512_cmp_epu64_mask, I512)
CMP64(cmp_f64, _mm512_cmp_pd_mask, D512)

// ---- logic / bit ops
template <int L> AI V32 lop3(V32 x, V32 y, V32 z) {
  V32 r;
  r.a = (u32v)_mm512_ternarylogic_epi32(I512(x.a), I512(y.a), I512(z.a), L);
  r.b = (u32v)_mm512_ternarylogic_epi32(I512(x.b), I512(y.b), I512(z.b), L);
  return r;
}
UN32(popc32, u32v, _mm512_popcnt_epi32(I512(p)))
UN64(popc64_, u64v, _mm512_popcnt_epi64(I512(p)))

UN32(clz32, u32v, _mm512_lzcnt_epi32(I512(p)))
UN64(clz64_, u64v, _mm512_lzcnt_epi64(I512(p)))

// ---- conversions
template <int R> AI V32 cvt_f32_s32(V32 x) {
  V32 r;
  r.a = (u32v)_mm512_cvt_roundepi32_ps(I512(x.a), RM(R));
  r.b = (u32v)_mm512_cvt_roundepi32_ps(I512(x.b), RM(R));
  return r;
}

template <int R> AI V32 cvt_f32_u32(V32 x) {
  V32 r;
  r.a = (u32v)_mm512_cvt_roundepu32_ps(I512(x.a), RM(R));
  r.b = (u32v)_mm512_cvt_roundepu32_ps(I512(x.b), RM(R));
  return r;
}

template <int R> AI __m512i f2s(__m512 p) {
  __m512i r = _mm512_cvt_roundps_epi32(p, RM(R));
  r = _mm512_mask_mov_epi32(r, _mm512_cmp_ps_mask(p, _mm512_set1_ps(2147483648.0f), _CMP_GE_OQ),
                            _mm512_set1_epi32(0x7fffffff));
  return _mm512_mask_mov_epi32(r, _mm512_cmp_ps_mask(p, p, _CMP_UNORD_Q), _mm512_setzero_si512());
}

template <int R> AI __m512i f2u(__m512 p) {
  __m512i r = _mm512_cvt_roundps_epu32(p, RM(R));
  return _mm512_mask_mov_epi32(r, _mm512_cmp_ps_mask(p, _mm512_setzero_ps(), _CMP_NGT_UQ),
                               _mm512_setzero_si512());
}

template <int R>
UN32(cvt_s32_f32, f32v, f2s<R>(F512(p)))
template <int R>
UN32(cvt_u32_f32, f32v, f2u<R>(F512(p)))
#define CV64(name, f, K) template <int R> UN64(name, u64v, f(K(p), RM(R)))
CV64(cvt_f64_s64, _mm512_cvt_roundepi64_pd, I512) CV64(cvt_f64_u64, _mm512_cvt_roundepu64_pd, I512) AI V64
    cvt_f64_f32(V32 x) {
  V64 r;
  r.a = (u64v)_mm512_cvtps_pd((__m256)LO256(x.a));
  r.b = (u64v)_mm512_cvtps_pd((__m256)HI256(x.a));
  r.c = (u64v)_mm512_cvtps_pd((__m256)LO256(x.b));
  r.d = (u64v)_mm512_cvtps_pd((__m256)HI256(x.b));
  return r;
}

template <int R> AI V32 cvt_f32_f64(V64 x) {
  V32 r;
  r.a = (u32v)CAT256((__m256i)_mm512_cvt_roundpd_ps(D512(x.a), RM(R)),
                     (__m256i)_mm512_cvt_roundpd_ps(D512(x.b), RM(R)));
  r.b = (u32v)CAT256((__m256i)_mm512_cvt_roundpd_ps(D512(x.c), RM(R)),
                     (__m256i)_mm512_cvt_roundpd_ps(D512(x.d), RM(R)));
  return r;
}

#define CVI64F32(name, f) \
  template <int R> AI V32 name(V64 x) { \
    V32 r; \
    r.a = (u32v)CAT256((__m256i)f(I512(x.a), RM(R)), (__m256i)f(I512(x.b), RM(R))); \
    r.b = (u32v)CAT256((__m256i)f(I512(x.c), RM(R)), (__m256i)f(I512(x.d), RM(R))); \
    return r; \
  }
CVI64F32(cvt_f32_s64, _mm512_cvt_roundepi64_ps)

CVI64F32(cvt_f32_u64, _mm512_cvt_roundepu64_ps)

template <int R>
UN32(rint_f32, f32v, _mm512_roundscale_ps(F512(p), R)) // R: 0 rn, 1 down, 2 up, 3 trunc
template <int R>
UN64(rint_f64, f64v, _mm512_roundscale_pd(D512(p), R))
template <int R>
AI V16 cvt_f16_f32(V32 x) {
  V16 r;
  r.a = (u16v)CAT256(_mm512_cvt_roundps_ph(F512(x.a), RM(R)), _mm512_cvt_roundps_ph(F512(x.b), RM(R)));
  return r;
}

AI V32 cvt_f32_f16(V16 x) {
  V32 r;
  r.a = (u32v)_mm512_cvtph_ps(LO256(x.a));
  r.b = (u32v)_mm512_cvtph_ps(HI256(x.a));
  return r;
}

AI V32 cvt_f32_bf16(V16 x) {
  V32 r = zx32(x);
  r.a <<= 16;
  r.b <<= 16;
  return r;
}

AI u32v bfrn(u32v p) {
  u32v r = (p + 0x7fffu + ((p >> 16) & 1)) >> 16;
  return (u32v)_mm512_mask_mov_epi32(I512(r), _mm512_cmp_ps_mask(F512(p), F512(p), _CMP_UNORD_Q),
                                     _mm512_set1_epi32(0x7fff));
}

AI u32v bfrz(u32v p) {
  u32v r = p >> 16;
  return (u32v)_mm512_mask_mov_epi32(I512(r), _mm512_cmp_ps_mask(F512(p), F512(p), _CMP_UNORD_Q),
                                     _mm512_set1_epi32(0x7fff));
}

template <int R> AI V32 bf_bits(V32 x) {
  V32 r;
  if (R == 3) {
    r.a = bfrz(x.a);
    r.b = bfrz(x.b);
  } else {
    r.a = bfrn(x.a);
    r.b = bfrn(x.b);
  }
  return r;
}
UN32(tf32_rna, u32v, (p + 0x1000u) & 0xffffe000u)
UN32(tf32_rn, u32v, (p + 0xfffu + ((p >> 13) & 1)) & 0xffffe000u)
UN32(tf32_rz, u32v, p & 0xffffe000u)

// ---- reductions over all lanes
AI uint64_t rmin_u64(V64 x) {
  return _mm512_reduce_min_epu64(
      _mm512_min_epu64(_mm512_min_epu64(I512(x.a), I512(x.b)), _mm512_min_epu64(I512(x.c), I512(x.d))));
}

AI uint64_t rmax_u64(V64 x) {
  return _mm512_reduce_max_epu64(
      _mm512_max_epu64(_mm512_max_epu64(I512(x.a), I512(x.b)), _mm512_max_epu64(I512(x.c), I512(x.d))));
}

AI uint64_t ror_u64(V64 x) { return _mm512_reduce_or_epi64(I512(x.a | x.b | x.c | x.d)); }

AI uint32_t rmax_u32(V32 x) { return _mm512_reduce_max_epu32(_mm512_max_epu32(I512(x.a), I512(x.b))); }

AI uint32_t ror_u32(V32 x) { return _mm512_reduce_or_epi32(I512(x.a | x.b)); }

template <int S> AI V32 prmt_c(V32 x, V32 y) { // byte permute with a constant selector (no sign modes)
  constexpr int s0 = S & 7, s1 = S >> 4 & 7, s2 = S >> 8 & 7, s3 = S >> 12 & 7;
#define PB(s, o, k) ((uint32_t)(((s) >> 2) == (o) ? ((s) & 3) + (k) : 0x80))
#define PI(o, k) (PB(s0, o, k) | PB(s1, o, k) << 8 | PB(s2, o, k) << 16 | PB(s3, o, k) << 24)
  const __m512i ix = _mm512_broadcast_i32x4(_mm_setr_epi32(PI(0, 0), PI(0, 4), PI(0, 8), PI(0, 12))),
                iy = _mm512_broadcast_i32x4(_mm_setr_epi32(PI(1, 0), PI(1, 4), PI(1, 8), PI(1, 12)));
  V32 r;
  r.a = (u32v)_mm512_or_si512(_mm512_shuffle_epi8(I512(x.a), ix), _mm512_shuffle_epi8(I512(y.a), iy));
  r.b = (u32v)_mm512_or_si512(_mm512_shuffle_epi8(I512(x.b), ix), _mm512_shuffle_epi8(I512(y.b), iy));
  return r;
}

// ---- scalar half precision
AI float h2f(uint16_t h) { return _cvtsh_ss(h); }

template <int R = 0> AI uint16_t f2h(float f) { return _cvtss_sh(f, R); }
