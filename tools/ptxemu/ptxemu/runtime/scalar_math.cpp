// Operations done lane by lane: special functions, division, bit fields.
#include "internal.hpp"

#include <algorithm>
#include <math.h>
#include <type_traits>

// ---- unary
template <class F> static void f32loop(const void *a, void *d, F f) {
  const float *A = (const float *)a;
  float *D = (float *)d;
  for (int lane = 0; lane < 32; lane++) D[lane] = f(A[lane]);
}

template <class F> static void f16loop(const void *a, void *d, bool bf, F f) {
  const uint16_t *A = (const uint16_t *)a;
  uint16_t *D = (uint16_t *)d;
  for (int lane = 0; lane < 64; lane++) {
    float x = f(bf ? bf2f(A[lane]) : h2f(A[lane]));
    D[lane] = bf ? f2bf(x) : f2h(x);
  }
}

extern "C" void pe_un(int op, const void *a, void *d) {
  const uint32_t *A = (const uint32_t *)a;
  uint32_t *D = (uint32_t *)d;
  const uint64_t *A8 = (const uint64_t *)a;
  uint64_t *D8 = (uint64_t *)d;
  switch (op) {
  case U_SIN: f32loop(a, d, sinf); break;
  case U_COS: f32loop(a, d, cosf); break;
  case U_TANH: f32loop(a, d, tanhf); break;
  case U_EX2: f32loop(a, d, exp2f); break;
  case U_LG2: f32loop(a, d, log2f); break;
  case U_RSQRT: f32loop(a, d, [](float x) { return (float)(1.0 / sqrt((double)x)); }); break;
  case U_RSQRT64:
    for (int lane = 0; lane < 32; lane++) ((double *)d)[lane] = 1.0 / sqrt(((const double *)a)[lane]);
    break;
  case U_RCP64:
    for (int lane = 0; lane < 32; lane++) ((double *)d)[lane] = 1.0 / ((const double *)a)[lane];
    break;
  case U_BREV32:
    for (int lane = 0; lane < 32; lane++) {
      uint32_t v = A[lane], r = 0;
      for (int i = 0; i < 32; i++) r |= (v >> i & 1) << (31 - i);
      D[lane] = r;
    }
    break;
  case U_BREV64:
    for (int lane = 0; lane < 32; lane++) {
      uint64_t v = A8[lane], r = 0;
      for (int i = 0; i < 64; i++) r |= (v >> i & 1) << (63 - i);
      D8[lane] = r;
    }
    break;
  case U_BFIND_U32:
    for (int lane = 0; lane < 32; lane++) D[lane] = A[lane] ? 31 - __builtin_clz(A[lane]) : ~0u;
    break;
  case U_BFIND_S32:
    for (int lane = 0; lane < 32; lane++) {
      uint32_t v = (int32_t)A[lane] < 0 ? ~A[lane] : A[lane];
      D[lane] = v ? 31 - __builtin_clz(v) : ~0u;
    }
    break;
  case U_BFIND_U64:
    for (int lane = 0; lane < 32; lane++) D[lane] = A8[lane] ? 63 - __builtin_clzll(A8[lane]) : ~0u;
    break;
  case U_BFIND_S64:
    for (int lane = 0; lane < 32; lane++) {
      uint64_t v = (int64_t)A8[lane] < 0 ? ~A8[lane] : A8[lane];
      D[lane] = v ? 63 - __builtin_clzll(v) : ~0u;
    }
    break;
  case U_EX2_F16X2: f16loop(a, d, false, exp2f); break;
  case U_TANH_F16X2: f16loop(a, d, false, tanhf); break;
  case U_EX2_BF16X2: f16loop(a, d, true, exp2f); break;
  case U_TANH_BF16X2: f16loop(a, d, true, tanhf); break;
  }
}

// ---- binary: integer division etc. (x / 0 yields all ones on the device)
template <class T, class F> static void iloop(const void *a, const void *b, void *d, F f) {
  const T *A = (const T *)a, *B = (const T *)b;
  T *D = (T *)d;
  for (int lane = 0; lane < 32; lane++) D[lane] = f(A[lane], B[lane]);
}

template <class T> static T sdiv(T a, T b) {
  if (b == 0) return (T)-1;
  if (b == (T)-1) return (T)(0 - (typename std::make_unsigned<T>::type)a);
  return a / b;
}

template <class T> static T srem(T a, T b) {
  if (b == 0) return a;
  if (b == (T)-1) return 0;
  return a % b;
}

template <class T> static T udiv(T a, T b) { return b ? a / b : (T)-1; }

template <class T> static T urem(T a, T b) { return b ? a % b : a; }

extern "C" void pe_bin(int op, const void *a, const void *b, void *d) {
  switch (op) {
  case B_DIVU16: iloop<uint16_t>(a, b, d, udiv<uint16_t>); break;
  case B_DIVS16: iloop<int16_t>(a, b, d, sdiv<int16_t>); break;
  case B_REMU16: iloop<uint16_t>(a, b, d, urem<uint16_t>); break;
  case B_REMS16: iloop<int16_t>(a, b, d, srem<int16_t>); break;
  case B_DIVU32: iloop<uint32_t>(a, b, d, udiv<uint32_t>); break;
  case B_DIVS32: iloop<int32_t>(a, b, d, sdiv<int32_t>); break;
  case B_REMU32: iloop<uint32_t>(a, b, d, urem<uint32_t>); break;
  case B_REMS32: iloop<int32_t>(a, b, d, srem<int32_t>); break;
  case B_DIVU64: iloop<uint64_t>(a, b, d, udiv<uint64_t>); break;
  case B_DIVS64: iloop<int64_t>(a, b, d, sdiv<int64_t>); break;
  case B_REMU64: iloop<uint64_t>(a, b, d, urem<uint64_t>); break;
  case B_REMS64: iloop<int64_t>(a, b, d, srem<int64_t>); break;
  case B_MULHIU64:
    iloop<uint64_t>(a, b, d,
                    [](uint64_t x, uint64_t y) { return (uint64_t)((unsigned __int128)x * y >> 64); });
    break;
  case B_MULHIS64:
    iloop<int64_t>(a, b, d, [](int64_t x, int64_t y) { return (int64_t)((__int128)x * y >> 64); });
    break;
  case B_ADDSATS32:
    iloop<int32_t>(a, b, d, [](int32_t x, int32_t y) {
      int64_t r = (int64_t)x + y;
      return (int32_t)std::max<int64_t>(INT32_MIN, std::min<int64_t>(INT32_MAX, r));
    });
    break;
  case B_SUBSATS32:
    iloop<int32_t>(a, b, d, [](int32_t x, int32_t y) {
      int64_t r = (int64_t)x - y;
      return (int32_t)std::max<int64_t>(INT32_MIN, std::min<int64_t>(INT32_MAX, r));
    });
    break;
  }
}

extern "C" void pe_tri(int op, const void *a, const void *b, const void *c, void *d) {
  const uint32_t *A = (const uint32_t *)a, *B = (const uint32_t *)b, *C = (const uint32_t *)c;
  uint32_t *D = (uint32_t *)d;
  const uint64_t *A8 = (const uint64_t *)a;
  uint64_t *D8 = (uint64_t *)d;
  for (int lane = 0; lane < 32; lane++) switch (op) {
    case T_PRMT: {
      uint64_t v = (uint64_t)B[lane] << 32 | A[lane];
      uint32_t s = C[lane], r = 0;
      for (int i = 0; i < 4; i++) {
        uint32_t n = s >> (4 * i) & 15;
        uint8_t x = v >> (8 * (n & 7));
        if (n & 8) x = (x & 0x80) ? 0xff : 0;
        r |= (uint32_t)x << (8 * i);
      }
      D[lane] = r;
      break;
    }
    case T_BFE_U32: {
      uint32_t p = B[lane] & 255, n = C[lane] & 255;
      uint64_t v = p < 32 ? A[lane] >> p : 0;
      D[lane] = n >= 32 ? v : v & ((1ull << n) - 1);
      break;
    }
    case T_BFE_S32: {
      uint32_t p = B[lane] & 255, n = C[lane] & 255;
      int32_t v = A[lane];
      if (!n) {
        D[lane] = 0;
        break;
      }
      uint32_t scale_b = std::min(p + n - 1, 31u);
      bool s = v >> scale_b & 1;
      uint32_t r = 0;
      for (uint32_t i = 0; i < 32; i++) {
        bool bit = (i < n && p + i < 32) ? (uint32_t)v >> (p + i) & 1 : s;
        r |= (uint32_t)bit << i;
      }
      D[lane] = r;
      break;
    }
    case T_BFE_U64: {
      uint32_t p = B[lane] & 255, n = C[lane] & 255;
      uint64_t v = p < 64 ? A8[lane] >> p : 0;
      D8[lane] = n >= 64 ? v : v & ((1ull << n) - 1);
      break;
    }
    case T_BFE_S64: {
      uint32_t p = B[lane] & 255, n = C[lane] & 255;
      uint64_t v = A8[lane];
      if (!n) {
        D8[lane] = 0;
        break;
      }
      uint32_t scale_b = std::min(p + n - 1, 63u);
      bool s = v >> scale_b & 1;
      uint64_t r = 0;
      for (uint32_t i = 0; i < 64; i++) {
        bool bit = (i < n && p + i < 64) ? v >> (p + i) & 1 : s;
        r |= (uint64_t)bit << i;
      }
      D8[lane] = r;
      break;
    }
    case T_DP4A_SS:
    case T_DP4A_UU:
    case T_DP4A_SU:
    case T_DP4A_US: {
      int64_t s = (int32_t)C[lane];
      for (int i = 0; i < 4; i++) {
        uint8_t x = A[lane] >> (8 * i), y = B[lane] >> (8 * i);
        int64_t xs = op == T_DP4A_SS || op == T_DP4A_SU ? (int8_t)x : x,
                ys = op == T_DP4A_SS || op == T_DP4A_US ? (int8_t)y : y;
        s += xs * ys;
      }
      D[lane] = (uint32_t)s;
      break;
    }
    case T_SAD_S32:
      D[lane] = C[lane] + ((int32_t)A[lane] < (int32_t)B[lane] ? B[lane] - A[lane] : A[lane] - B[lane]);
      break;
    case T_SAD_U32: D[lane] = C[lane] + (A[lane] < B[lane] ? B[lane] - A[lane] : A[lane] - B[lane]); break;
    }
}

extern "C" void pe_bfi(int w64, const void *a, const void *b, const V32 *p, const V32 *n, void *d) {
  for (int lane = 0; lane < 32; lane++) {
    uint32_t ps = lane32(*p, lane) & 255, len = lane32(*n, lane) & 255;
    if (!w64) {
      uint32_t x = ((const uint32_t *)a)[lane], y = ((const uint32_t *)b)[lane];
      uint64_t mk = ps < 32 ? ((len >= 32 ? ~0ull : (1ull << len) - 1) << ps) & 0xffffffffull : 0;
      ((uint32_t *)d)[lane] = (uint32_t)((y & ~mk) | (((uint64_t)x << (ps & 31)) & mk));
    } else {
      uint64_t x = ((const uint64_t *)a)[lane], y = ((const uint64_t *)b)[lane];
      uint64_t mk = ps < 64 ? (len >= 64 ? ~0ull : (1ull << len) - 1) << ps : 0;
      ((uint64_t *)d)[lane] = (y & ~mk) | ((x << (ps & 63)) & mk);
    }
  }
}
