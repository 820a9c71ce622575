// The last step of every backward reduction: the blocks' sums, merged in their order.
#pragma once

#include <cstdint>

#include "cuda/common/launch.h"

namespace fusedres::cuda {

// A block's partial sums, (blocks, kinds, channels): of dz; of dz * (y - mean); of dz * (y2 - mean2).
struct MergeSumsParams {
  const float* partial;
  const float *invstd, *invstd2;  // null: that sum is not asked for, and is 0
  float *sums, *sums2;            // (2, channels): sum of dz, sum of dz * x_hat; null: not asked for
  int64_t blocks, channels;
  int kinds;
};

void launch_merge_sums(const MergeSumsParams& params, const Target& target);

}  // namespace fusedres::cuda
