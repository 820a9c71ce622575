// Arithmetic of 16-bit floats: exact, then rounded once (through round-to-odd in f32).
#include "internal.hpp"

#include <math.h>

#ifdef PE_AVX512
// 16-bit floats: exact through round-to-odd in f32
AI __m512 odd_add(__m512 x, __m512 y) {
  __m512 d = _mm512_add_round_ps(x, y, RM(1)), u = _mm512_add_round_ps(x, y, RM(2));
  __mmask16 ne = _mm512_cmp_ps_mask(d, u, _CMP_NEQ_OQ),
            od = _mm512_test_epi32_mask(I512(d), _mm512_set1_epi32(1));
  return _mm512_mask_mov_ps(d, ne & ~od, u);
}

AI __m512 odd_mul(__m512 x, __m512 y) { return _mm512_mul_ps(x, y); }

AI __m512 odd_fma(__m512 x, __m512 y, __m512 z) {
  __m512 n = _mm512_fmadd_ps(x, y, z), d = _mm512_fmadd_round_ps(x, y, z, RM(1)),
         u = _mm512_fmadd_round_ps(x, y, z, RM(2));
  __mmask16 ne = _mm512_cmp_ps_mask(d, u, _CMP_NEQ_OQ),
            od = _mm512_test_epi32_mask(I512(d), _mm512_set1_epi32(1));
  __m512 r = _mm512_mask_mov_ps(d, ne & ~od, u);
  return _mm512_mask_mov_ps(n, ne, r);
}

AI __m512 up_h(__m256i x) { return _mm512_cvtph_ps(x); }

AI __m512 up_b(__m256i x) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16)); }

AI __m256i dn_h(__m512 x) { return _mm512_cvt_roundps_ph(x, RM(0)); }

AI __m256i dn_b(__m512 x) { return _mm512_cvtepi32_epi16(I512(bfrn((u32v)x))); }

AI __m512 addz(__m512 x, __m512 y) {
  __m512 n = _mm512_add_ps(x, y), o = odd_add(x, y);
  return _mm512_mask_mov_ps(o, _mm512_cmp_ps_mask(n, _mm512_setzero_ps(), _CMP_EQ_OQ), n);
}

template <class U, class D, class F>
static void hbin(const void *a, const void *b, void *d, int nz, U up, D dn, F f) {
  for (int i = 0; i < 2 * nz; i++) {
    __m256i x = ((const __m256i *)a)[i], y = ((const __m256i *)b)[i];
    ((__m256i *)d)[i] = dn(f(up(x), up(y)));
  }
}

extern "C" void pe_hbin(int op, const void *a, const void *b, void *d, int nz) {
  auto uh = [](__m256i x) { return up_h(x); };
  auto ub = [](__m256i x) { return up_b(x); };
  auto dh = [](__m512 x) { return dn_h(x); };
  auto db = [](__m512 x) { return dn_b(x); };
  auto A = [](__m512 x, __m512 y) { return addz(x, y); };
  auto S = [](__m512 x, __m512 y) {
    return addz(x, _mm512_castsi512_ps(_mm512_xor_si512(I512(y), _mm512_set1_epi32(0x80000000))));
  };
  auto M = [](__m512 x, __m512 y) { return odd_mul(x, y); };
  auto mn = [](__m512 x, __m512 y) { return minps(x, y); };
  auto highest = [](__m512 x, __m512 y) { return maxps(x, y); };
  auto mnn = [](__m512 x, __m512 y) { return nanps(x, y, minps(x, y)); };
  auto mxn = [](__m512 x, __m512 y) { return nanps(x, y, maxps(x, y)); };
  switch (op) {
  case B_HADD: hbin(a, b, d, nz, uh, dh, A); break;
  case B_HSUB: hbin(a, b, d, nz, uh, dh, S); break;
  case B_HMUL: hbin(a, b, d, nz, uh, dh, M); break;
  case B_HMIN: hbin(a, b, d, nz, uh, dh, mn); break;
  case B_HMAX: hbin(a, b, d, nz, uh, dh, highest); break;
  case B_HMINNAN: hbin(a, b, d, nz, uh, dh, mnn); break;
  case B_HMAXNAN: hbin(a, b, d, nz, uh, dh, mxn); break;
  case B_BADD: hbin(a, b, d, nz, ub, db, A); break;
  case B_BSUB: hbin(a, b, d, nz, ub, db, S); break;
  case B_BMUL: hbin(a, b, d, nz, ub, db, M); break;
  case B_BMIN: hbin(a, b, d, nz, ub, db, mn); break;
  case B_BMAX: hbin(a, b, d, nz, ub, db, highest); break;
  case B_BMINNAN: hbin(a, b, d, nz, ub, db, mnn); break;
  case B_BMAXNAN: hbin(a, b, d, nz, ub, db, mxn); break;
  }
}

extern "C" void pe_hfma(int bf, int relu, const void *a, const void *b, const void *c, void *d, int nz) {
  for (int i = 0; i < 2 * nz; i++) {
    __m256i x = ((const __m256i *)a)[i], y = ((const __m256i *)b)[i], z = ((const __m256i *)c)[i];
    __m512 r = bf ? odd_fma(up_b(x), up_b(y), up_b(z)) : odd_fma(up_h(x), up_h(y), up_h(z));
    if (relu) r = maxps(r, _mm512_setzero_ps());
    ((__m256i *)d)[i] = bf ? dn_b(r) : dn_h(r);
  }
}
#else
// 16-bit floats: the exact f64 sum is rounded to odd in f32, shared_offset that the last rounding is the only
// one
static float odd_f32(double d) {
  float f = (float)d;
  uint32_t u = f32_bits(f);
  if (f == d || d != d || (u & 1)) return f;
  return bits_f32(fabs((double)f) > fabs(d) ? u - 1 : u + 1);
}

static float odd_sum(double p, double c) { // p + c, rounded to odd in f64 first
  double s = p + c, t = s - p, err = (p - (s - t)) + (c - t);
  uint64_t u;
  memcpy(&u, &s, 8);
  if (err != 0 && !(u & 1) && fabs(s) < INFINITY) {
    u += (err > 0) == (s > 0) ? 1 : -1;
    memcpy(&s, &u, 8);
  }
  return odd_f32(s);
}

static float hop(int op, float x, float y) { // op: B_HADD.. relative to the first of its type
  float nan = bits_f32(0x7fffffff), mn = x != x ? y : y < x ? y : x, highest = x != x ? y : y > x ? y : x;
  switch (op) {
  case 0: return odd_sum(x, y);
  case 1: return odd_sum(x, -(double)y);
  case 2: return odd_f32((double)x * y);
  case 3: return mn;
  case 4: return highest;
  case 5: return x != x || y != y ? nan : mn;
  default: return x != x || y != y ? nan : highest;
  }
}

extern "C" void pe_hbin(int op, const void *a, const void *b, void *d, int nz) {
  const uint16_t *A = (const uint16_t *)a, *B = (const uint16_t *)b;
  uint16_t *D = (uint16_t *)d;
  bool bf = op >= B_BADD;
  op -= bf ? B_BADD : B_HADD;
  for (int lane = 0; lane < 32 * nz; lane++)
    D[lane] = bf ? f2bf(hop(op, bf2f(A[lane]), bf2f(B[lane]))) : f2h(hop(op, h2f(A[lane]), h2f(B[lane])));
}

extern "C" void pe_hfma(int bf, int relu, const void *a, const void *b, const void *c, void *d, int nz) {
  const uint16_t *A = (const uint16_t *)a, *B = (const uint16_t *)b, *C = (const uint16_t *)c;
  uint16_t *D = (uint16_t *)d;
  for (int lane = 0; lane < 32 * nz; lane++) {
    float r = bf ? odd_sum((double)bf2f(A[lane]) * bf2f(B[lane]), bf2f(C[lane]))
                 : odd_sum((double)h2f(A[lane]) * h2f(B[lane]), h2f(C[lane]));
    if (relu && !(r > 0)) r = 0;
    D[lane] = bf ? f2bf(r) : f2h(r);
  }
}
#endif
