#include "cpu/conv/cache.h"

#include <algorithm>

#if defined(__unix__)
#include <unistd.h>
#endif

namespace fusedres::conv {
namespace {

int64_t found_l2() {
#if defined(_SC_LEVEL2_CACHE_SIZE)
  return sysconf(_SC_LEVEL2_CACHE_SIZE);
#else
  return 0;
#endif
}

}  // namespace

int64_t l2_bytes() {
  constexpr int64_t kKilobyte = 1024;
  static const int64_t found = found_l2();
  return found > 0 ? std::clamp(found, 1024 * kKilobyte, 2048 * kKilobyte) : 1024 * kKilobyte;
}

}  // namespace fusedres::conv
