// BatchNorm's parameter gradients, and p, q, r such that dy = p * dz + q * y + r.
#pragma once

#include <cstdint>

#include "cuda/common/launch.h"
#include "cuda/common/param.h"

namespace fusedres::cuda {

struct BnBwdFinalizeParams {
  const float* sums;  // (2 * parts, channels): each part's sum of dz, and of dz * x_hat
  Param gamma, mean, invstd;
  float *dgamma, *dbeta, *p, *q, *r;
  int64_t parts, channels;
  double values;  // a channel has
  bool frozen;
};

void launch_bn_bwd_finalize(const BnBwdFinalizeParams& params, const Target& target);

}  // namespace fusedres::cuda
