// Special registers that are the same for every warp, and the clocks.
#include "internal.hpp"

#include <time.h>

static V32 mkmask(int k) {
  alignas(64) uint32_t t[32];
  for (int lane = 0; lane < 32; lane++) {
    uint32_t e = 1u << lane, lt = e - 1;
    t[lane] = k == 0   ? (uint32_t)lane
              : k == 1 ? lt
              : k == 2 ? (lt | e)
              : k == 3 ? ~(lt | e)
              : k == 4 ? ~lt
                       : e;
  }
  return ldv32(t);
}

const V32 pe_iota = mkmask(0), pe_lt_mask = mkmask(1), pe_le_mask = mkmask(2), pe_gt_mask = mkmask(3),
          pe_ge_mask = mkmask(4), pe_eq_mask = mkmask(5);

extern "C" uint64_t pe_clock() { return __builtin_ia32_rdtsc(); }

extern "C" uint64_t pe_globaltimer() {
  timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  return t.tv_sec * 1000000000ull + t.tv_nsec;
}
