// cvt between any two types, lane by lane.
#include "internal.hpp"

#include <algorithm>
#include <math.h>

static double fp8_dec(uint8_t v, bool e5) {
  int sign = v >> 7, exponent, mantissa;
  if (e5) {
    exponent = v >> 2 & 31;
    mantissa = v & 3;
    if (exponent == 31) return mantissa ? NAN : sign ? -INFINITY : INFINITY;
    double r = exponent ? ldexp(1 + mantissa / 4.0, exponent - 15) : ldexp(mantissa / 4.0, -14);
    return sign ? -r : r;
  }
  exponent = v >> 3 & 15;
  mantissa = v & 7;
  if ((v & 127) == 127) return NAN;
  double r = exponent ? ldexp(1 + mantissa / 8.0, exponent - 7) : ldexp(mantissa / 8.0, -6);
  return sign ? -r : r;
}

static uint8_t fp8_enc(double x, bool e5) {
  if (x != x) return 0x7f;
  uint8_t s = signbit(x) ? 0x80 : 0;
  x = fabs(x);
  double highest = e5 ? 57344.0 : 448.0;
  if (x >= highest) return s | (e5 ? 0x7b : 0x7e);
  int best = 0;
  double bd = INFINITY;
  int top = e5 ? 0x7b : 0x7e;
  int lo = 0, hi = top;
  while (lo < hi) {
    int mid = (lo + hi) / 2;
    if (fp8_dec(mid, e5) < x) lo = mid + 1;
    else hi = mid;
  }
  for (int c = std::max(0, lo - 1); c <= std::min(top, lo); c++) {
    double d = fabs(fp8_dec(c, e5) - x);
    if (d < bd || (d == bd && !(c & 1))) bd = d, best = c;
  }
  return s | best;
}

static double rint_mode(double x, int r) {
  switch (r) {
  case RN_M: return floor(x);
  case RN_P: return ceil(x);
  case RN_Z: return trunc(x);
  case RN_A: return round(x);
  }
  return nearbyint(x);
}

extern "C" void pe_cvt(int dt, int st, int rnd, int sat, const void *a,
                       void *d) { // containers: 16 bit for <=16-bit types, else natural
  for (int lane = 0; lane < 32; lane++) {
    double x = 0;
    __int128 i = 0;
    bool fl = st >= C_F16;
    switch (st) {
    case C_U8: i = (uint8_t)((const uint16_t *)a)[lane]; break;
    case C_S8: i = (int8_t)((const uint16_t *)a)[lane]; break;
    case C_U16: i = ((const uint16_t *)a)[lane]; break;
    case C_S16: i = ((const int16_t *)a)[lane]; break;
    case C_U32: i = ((const uint32_t *)a)[lane]; break;
    case C_S32: i = ((const int32_t *)a)[lane]; break;
    case C_U64: i = ((const uint64_t *)a)[lane]; break;
    case C_S64: i = ((const int64_t *)a)[lane]; break;
    case C_F16: x = h2f(((const uint16_t *)a)[lane]); break;
    case C_BF16: x = bf2f(((const uint16_t *)a)[lane]); break;
    case C_F32: x = ((const float *)a)[lane]; break;
    case C_F64: x = ((const double *)a)[lane]; break;
    case C_E4M3: x = fp8_dec(((const uint16_t *)a)[lane], false); break;
    case C_E5M2: x = fp8_dec(((const uint16_t *)a)[lane], true); break;
    }
    if (dt >= C_F16) {
      if (!fl) x = (double)i;
      if (sat == 1) x = x != x ? 0 : x < 0 ? 0 : x > 1 ? 1 : x;
      switch (dt) {
      case C_F16: {
        float f = (float)x;
        ((uint16_t *)d)[lane] = rnd == RN_Z   ? f2h<3>(f)
                                : rnd == RN_M ? f2h<1>(f)
                                : rnd == RN_P ? f2h<2>(f)
                                              : f2h<0>(f);
        break;
      }
      case C_BF16: {
        float f = (float)x;
        uint32_t u;
        memcpy(&u, &f, 4);
        ((uint16_t *)d)[lane] = f != f        ? 0x7fff
                                : rnd == RN_Z ? u >> 16
                                              : (u + 0x7fff + ((u >> 16) & 1)) >> 16;
        break;
      }
      case C_F32:
        ((float *)d)[lane] = fl ? (float)x : st == C_U64 ? (float)(uint64_t)i : (float)(int64_t)i;
        break;
      case C_F64: ((double *)d)[lane] = x; break;
      case C_E4M3: ((uint16_t *)d)[lane] = fp8_enc(x, false); break;
      case C_E5M2: ((uint16_t *)d)[lane] = fp8_enc(x, true); break;
      }
      continue;
    }
    if (fl) {
      if (x != x) i = 0;
      else {
        x = rint_mode(x, rnd);
        if (x > 1.8446744073709552e19) i = ((__int128)1 << 64);
        else if (x < -9.3e18) i = -((__int128)1 << 63);
        else i = (__int128)x;
      }
    }
    __int128 lo = 0, hi = 0;
    switch (dt) {
    case C_U8: hi = 255; break;
    case C_S8:
      lo = -128;
      hi = 127;
      break;
    case C_U16: hi = 65535; break;
    case C_S16:
      lo = -32768;
      hi = 32767;
      break;
    case C_U32: hi = UINT32_MAX; break;
    case C_S32:
      lo = INT32_MIN;
      hi = INT32_MAX;
      break;
    case C_U64: hi = UINT64_MAX; break;
    case C_S64:
      lo = INT64_MIN;
      hi = INT64_MAX;
      break;
    }
    if (fl || sat) i = i < lo ? lo : i > hi ? hi : i;
    switch (dt) {
    case C_U8: ((uint16_t *)d)[lane] = (uint8_t)i; break;
    case C_S8: ((uint16_t *)d)[lane] = (uint16_t)(int16_t)(int8_t)i; break;
    case C_U16:
    case C_S16: ((uint16_t *)d)[lane] = (uint16_t)i; break;
    case C_U32:
    case C_S32: ((uint32_t *)d)[lane] = (uint32_t)i; break;
    default: ((uint64_t *)d)[lane] = (uint64_t)i;
    }
  }
}
