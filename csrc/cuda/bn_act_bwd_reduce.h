// dz = dout where the activation was positive, and per block the sums of dz and of dz * x_hat.
#pragma once

#include <cstdint>

#include "cuda/common/launch.h"

namespace fusedres::cuda {

enum class Mask { kNone, kOut, kAffine };

// The mask is out > 0, or y * s + t > 0 once rounded. `dots` of the branches y and y2 are summed: 0, 1 or 2.
template <typename T>
struct BnActBwdReduceParams {
  const T *dout, *out, *y, *y2;
  const float *s, *t, *mean, *mean2;
  const float *invstd, *invstd2;  // null: the sum of dz * x_hat is not asked for, and 0
  T* dz;                          // written where there is a mask
  float *sums, *sums2;            // (2 * blocks, channels) of each branch
  int64_t rows, channels;
};

// The grid for `rows` of `channels`; its blocks.x is the number of parts that the sums have.
template <typename T>
Grid bn_act_bwd_reduce_grid(int64_t rows, int64_t channels, bool aligned, const Target& target);

template <typename T>
void launch_bn_act_bwd_reduce(
    const BnActBwdReduceParams<T>& params, Mask mask, int dots, const Grid& grid, bool aligned,
    const Target& target);

}  // namespace fusedres::cuda
