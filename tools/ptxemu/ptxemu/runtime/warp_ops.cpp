// Instructions that exchange values within a warp: shfl, vote, match, redux.
#include "internal.hpp"

#include <algorithm>
#include <math.h>

static bool check_members(Warp *warp, P mask, uint32_t members, uint32_t line, const char *what) {
  members &= warp->nlanes == 32 ? ~0u : (1u << warp->nlanes) - 1;
  P exited = ~warp->live;
  if (members & ~mask & ~exited) {
    pe_error(warp, first(mask), line,
             "%s: member mask 0x%08x includes lanes 0x%08x that do not execute it here (active 0x%08x)", what,
             members, members & ~mask, mask);
    return false;
  }
  if (mask & ~members) {
    pe_error(warp, first(mask & ~members), line, "%s: executing lane is not in its member mask 0x%08x", what,
             members);
    return false;
  }
  return true;
}

extern "C" void pe_warpsync(Warp *warp, P mask, const V32 *members, uint32_t line) {
  if (mask) {
    uint32_t done = 0;
    for (int lane : lanes(mask)) {
      uint32_t mm = lane32(*members, lane);
      if (done & mm) continue;
      done |= mm;
      check_members(warp, mask & mm, mm, line, "warp-synchronous instruction");
    }
  }
}

extern "C" void pe_shfl(Warp *warp, P mask, int mode, const V32 *src, const V32 *source_lane,
                        const V32 *clamp, const V32 *members, V32 *dst, P *pred, uint32_t line) {
  if (!mask) return;
  uint32_t first_members = lane32(*members, first(mask));
  bool uniform = true;
  for (int lane : lanes(mask)) uniform &= lane32(*members, lane) == first_members;
  if (uniform) check_members(warp, mask, first_members, line, "shfl.sync");
  else pe_warpsync(warp, mask, members, line);
  uint32_t *D = (uint32_t *)dst;
  P pr = 0;
  const uint32_t *S = (const uint32_t *)src;
  uint32_t R[32];
  for (int lane = 0; lane < 32; lane++) {
    uint32_t b = lane32(*source_lane, lane) & 31, c = lane32(*clamp, lane), sm = c >> 8 & 31, cv = c & 31;
    int j, highest = (lane & sm) | (cv & ~sm), mn = lane & sm;
    bool p;
    switch (mode) {
    case 0:
      j = lane - (int)b;
      p = j >= highest;
      break;
    case 1:
      j = lane + b;
      p = j <= highest;
      break;
    case 2:
      j = lane ^ b;
      p = j <= highest;
      break;
    default: j = mn | (b & ~sm); p = j <= highest;
    }
    if (!p) j = lane;
    R[lane] = S[j & 31];
    if (p) pr |= 1u << lane;
    if ((mask >> lane & 1) && !(mask >> (j & 31) & 1))
      pe_error(warp, lane, line, "shfl.sync reads from inactive lane %d", j & 31);
  }
  memcpy(D, R, sizeof R);
  if (pred) *pred = pr;
}

// split the active lanes by member mask (converged groups may name different masks) and run f(group mask) for
// each
template <class F> static void by_members(P mask, const V32 *members, F f) {
  while (mask) {
    uint32_t mm = lane32(*members, first(mask));
    P g = 0;
    for (int lane : lanes(mask))
      if (lane32(*members, lane) == mm) g |= 1u << lane;
    f(g);
    mask &= ~g;
  }
}

extern "C" void pe_match(Warp *warp, P mask, int all, const V64 *v, const V32 *members, V32 *dst, P *pred) {
  uint32_t *D = (uint32_t *)dst;
  P pr = 0;
  by_members(mask, members, [&](P g) {
    if (all) {
      uint64_t x = lane64(*v, first(g));
      bool eq = true;
      for (int lane : lanes(g)) eq &= lane64(*v, lane) == x;
      for (int lane : lanes(g)) D[lane] = eq ? g : 0;
      if (eq) pr |= g;
    } else
      for (int lane : lanes(g)) {
        uint32_t equal = 0;
        for (int other : lanes(g))
          if (lane64(*v, other) == lane64(*v, lane)) equal |= 1u << other;
        D[lane] = equal;
      }
  });
  if (pred) *pred = pr;
}

extern "C" P pe_vote(Warp *warp, P mask, int kind, P pred, const V32 *members, V32 *ballot, uint32_t line) {
  pe_warpsync(warp, mask, members, line);
  P r = 0;
  uint32_t *B = (uint32_t *)ballot;
  by_members(mask, members, [&](P g) {
    P y = g & pred;
    bool v = kind == 1 ? y != 0 : kind == 2 ? y == g : y == g || !y;
    if (v) r |= g;
    if (kind == 0)
      for (int lane : lanes(g)) B[lane] = y;
  });
  return r;
}

// the reduction of one group of lanes
static uint32_t reduce_lanes(P mask, int op, const V32 *v) {
  uint32_t r = lane32(*v, first(mask));
  for (int lane : lanes(mask & (mask - 1))) {
    uint32_t x = lane32(*v, lane);
    switch (op) {
    case REDUCE_ADD: r += x; break;
    case REDUCE_MIN_UNSIGNED: r = std::min(r, x); break;
    case REDUCE_MAX_UNSIGNED: r = std::max(r, x); break;
    case REDUCE_MIN_SIGNED: r = std::min((int32_t)r, (int32_t)x); break;
    case REDUCE_MAX_SIGNED: r = std::max((int32_t)r, (int32_t)x); break;
    case REDUCE_AND: r &= x; break;
    case REDUCE_OR: r |= x; break;
    case REDUCE_XOR: r ^= x; break;
    case REDUCE_MIN_FLOAT: r = f32_bits(fminf(bits_f32(r), bits_f32(x))); break;
    case REDUCE_MAX_FLOAT: r = f32_bits(fmaxf(bits_f32(r), bits_f32(x))); break;
    }
  }
  return r;
}

extern "C" void pe_redux(Warp *warp, P mask, int op, const V32 *v, const V32 *members, V32 *dst) {
  uint32_t *D = (uint32_t *)dst;
  by_members(mask, members, [&](P g) {
    uint32_t r = reduce_lanes(g, op, v);
    for (int lane : lanes(g)) D[lane] = r;
  });
}
