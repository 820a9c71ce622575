// Prints one checksum per lane-vector operation over edge cases and random values; every instruction set must
// print the same.
#include <stdio.h>
#include <random>
#include "vec.hpp"
static std::mt19937_64 rng(1);
static uint64_t h;

static void add(uint64_t x) { h = (h ^ x) * 0x9e3779b97f4a7c15ull, h ^= h >> 29; }

static const double edge[] = {
    0.,          -0.,    1.,    -1.,         .5,          -.5,          1.5,           2.5,
    -2.5,        65504,  65520, 70000,       1e-5,        6e-8,         2.9e-8,        -3e-8,
    1e-40,       1e30,   3e38,  2147483647., 2147483648., -2147483648., -2147483904.,  4294967295.,
    4294967296., 9.3e18, NAN,   INFINITY,    -INFINITY,   1.0009765625, 1.00048828125, 1.001464843750001};

static V32 rf32() {
  V32 r;
  for (int l = 0; l < 32; l++) {
    uint64_t k = rng();
    float f = k % 3 == 0   ? (float)edge[k >> 8 & 31]
              : k % 3 == 1 ? bits_f32(k >> 32)
                           : (float)((int64_t)k >> 40) / 256;
    ((float *)&r)[l] = f;
  }
  return r;
}

static V64 rf64() {
  V64 r;
  for (int l = 0; l < 32; l++) {
    uint64_t k = rng();
    double f = k % 2 ? edge[k >> 8 & 31] : (double)(int64_t)k / (1 << (k >> 3 & 31));
    ((double *)&r)[l] = f;
  }
  return r;
}

template <class V> static V ri() {
  V r;
  for (size_t i = 0; i < sizeof r; i++) ((uint8_t *)&r)[i] = rng();
  return r;
}

static V32 small() {
  V32 r = ri<V32>();
  return sel32(0x0fffffff, and32(r, bc32(63)), r);
}

static void out(V32 v, bool f) {
  for (int l = 0; l < 32; l++) {
    uint32_t u = lane32(v, l);
    add(f && (u & 0x7fffffff) > 0x7f800000 ? 0x7fffffff : u);
  }
}

static void out(V64 v, bool f) {
  for (int l = 0; l < 32; l++) {
    uint64_t u = lane64(v, l);
    add(f && (u & ~0ull >> 1) > 0x7ffull << 52 ? 7 : u);
  }
}

static void out(V16 v, bool f) {
  for (int l = 0; l < 32; l++) {
    uint16_t u = ((uint16_t *)&v)[l];
    add(f && (u & 0x7fff) > 0x7c00 ? 0x7fff : u);
  }
}

static void out(P p, bool) { add(p); }

#define T(e, f) \
  do { \
    h = 1; \
    rng.seed(7); \
    for (int n = 0; n < 400; n++) { \
      V16 a = ri<V16>(), b = ri<V16>(); \
      V32 x = ri<V32>(), y = ri<V32>(), z = ri<V32>(), s = small(), fx = rf32(), fy = rf32(), fz = rf32(); \
      V64 X = ri<V64>(), Y = ri<V64>(), dx = rf64(), dy = rf64(), dz = rf64(); \
      P m = rng(); \
      out(e, f); \
    } \
    printf("%-40s %016llx\n", #e, (unsigned long long)h); \
  } while (0)
#define I3(f) \
  T(f##16(a, b), 0); \
  T(f##32(x, y), 0); \
  T(f##64(X, Y), 0)
#define R4(F, f) F(0, f) F(1, f) F(2, f) F(3, f)
#define FA(R, f) \
  T(f##_f32<R>(fx, fy), 1); \
  T(f##_f64<R>(dx, dy), 1);
#define C6(F, f) F(0, f) F(1, f) F(2, f) F(4, f) F(5, f) F(6, f)
#define CI(C, f) \
  T(cmp_s16<C>(a, b), 0); \
  T(cmp_u16<C>(a, b), 0); \
  T(cmp_s32<C>(x, sel32(m, x, y)), 0); \
  T(cmp_u32<C>(x, sel32(m, x, y)), 0); \
  T(cmp_s64<C>(X, sel64(m, X, Y)), 0); \
  T(cmp_u64<C>(X, sel64(m, X, Y)), 0);
#define CF(C) \
  T(cmp_f32<C>(fx, sel32(m, fx, fy)), 0); \
  T(cmp_f64<C>(dx, sel64(m, dx, dy)), 0);
#define CV(R, f) \
  T(cvt_f32_s32<R>(x), 1); \
  T(cvt_f32_u32<R>(x), 1); \
  T(cvt_f32_s64<R>(X), 1); \
  T(cvt_f32_u64<R>(X), 1); \
  T(cvt_f64_s64<R>(X), 1); \
  T(cvt_f64_u64<R>(X), 1); \
  T(cvt_f32_f64<R>(dx), 1); \
  T(rint_f32<R>(fx), 1); \
  T(rint_f64<R>(dx), 1); \
  T(cvt_s32_f32<R>(fx), 0); \
  T(cvt_u32_f32<R>(fx), 0); \
  T(cvt_f16_f32<R>(fx), 1); \
  T(fma_f32<R>(fx, fy, fz), 1); \
  T(fma_f64<R>(dx, dy, dz), 1); \
  T(sqrt_f32<R>(fx), 1); \
  T(sqrt_f64<R>(dx), 1);

int main() {
  I3(add);
  I3(sub);
  I3(mullo);
  I3(and);
  I3(or);
  I3(xor);
  I3(min_u);
  I3(max_u);
  I3(min_s);
  I3(max_s);
  T(sel16(m, a, b), 0);
  T(neg_s32(x), 0);
  T(neg_s64(X), 0);
  T(abs_s16(a), 0);
  T(abs_s32(x), 0);
  T(abs_s64(X), 0);
  T(not16(a), 0);
  T(not64(X), 0);
  T(zx64(x), 0);
  T(sx64(x), 0);
  T(tr32(X), 0);
  T(zx32(a), 0);
  T(sx32(a), 0);
  T(tr16(x), 0);
  T(pack32(a, b), 0);
  T(pack64(x, y), 0);
  T(hi16(x), 0);
  T(hi32(X), 0);
  T(sx8_16(a), 0);
  T(zx8_16(a), 0);
  T(sx8_32(x), 0);
  T(sx16_32(x), 0);
  T(zx16_32(x), 0);
  T(join16(half16(x, 1), half16(y, 0)), 0);
  T(shl32(x, s), 0);
  T(shr_u32(x, s), 0);
  T(shr_s32(x, s), 0);
  T(shl64(X, s), 0);
  T(shr_u64(X, s), 0);
  T(shr_s64(X, s), 0);
  T(shl16(a, s), 0);
  T(shr_u16(a, s), 0);
  T(shr_s16(a, s), 0);
  T(shf(x, y, s, true, true), 0);
  T(shf(x, y, s, false, true), 0);
  T(shf(x, y, s, true, false), 0);
  T(shf(x, y, s, false, false), 0);
  T(mulwide_u32(x, y), 0);
  T(mulwide_s32(x, y), 0);
  T(mulhi_u32(x, y), 0);
  T(mulhi_s32(x, y), 0);
  T(mulhi_u16(a, b), 0);
  T(mulhi_s16(a, b), 0);
  R4(FA, add) R4(FA, sub) R4(FA, mul) R4(FA, div) R4(CV, ) T(min_f32(fx, fy), 1);
  T(max_f32(fx, fy), 1);
  T(minnan_f32(fx, fy), 1);
  T(maxnan_f32(fx, fy), 1);
  T(min_f64(dx, dy), 1);
  T(max_f64(dx, dy), 1);
  T(ftz(fx), 1);
  T(sat_f32(fx), 1);
  T(copysign_f32(fx, fy), 1);
  T(neg_f64(dx), 1);
  C6(CI, )
  CF(0) CF(12) CF(17) CF(18) CF(30) CF(29) CF(8) CF(4) CF(25) CF(26) CF(22) CF(21) CF(7) CF(3)
      T(lop3<0x96>(x, y, z), 0);
  T(lop3<0xe8>(x, y, z), 0);
  T(lop3<0x1d>(x, y, z), 0);
  T(popc32(x), 0);
  T(popc64(X), 0);
  T(clz32(shr_u32(x, s)), 0);
  T(clz64(shr_u64(X, s)), 0);
  T(prmt_c<0x3276>(x, y), 0);
  T(prmt_c<0x0541>(x, y), 0);
  T(cvt_f64_f32(fx), 1);
  T(cvt_f32_f16(a), 1);
  T(cvt_f32_bf16(a), 1);
  T(bf_bits<0>(fx), 1);
  T(bf_bits<3>(fx), 1);
  T(tf32_rna(x), 0);
  T(tf32_rn(x), 0);
  T(bc64(rmin_u64(X)), 0);
  T(bc64(rmax_u64(X)), 0);
  T(bc64(ror_u64(X)), 0);
  T(bc32(rmax_u32(x)), 0);
  T(bc32(ror_u32(x)), 0);
}
