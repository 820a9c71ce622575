// What the engine knows of this CPU's caches. It decides how work is cut into blocks, never what is summed.
#pragma once

#include <cstdint>

namespace fusedres::conv {

// A core's L2, of 1 to 2 MB: less made no difference to the size of blocks. 1 MB where nothing tells.
int64_t l2_bytes();

}  // namespace fusedres::conv
