// Merges the tiles' moments by Chan's formula and derives the normalising affine.
#pragma once

#include <cstdint>

#include "cuda/common/launch.h"
#include "cuda/common/param.h"

namespace fusedres::cuda {

struct BnFinalizeParams {
  const float *count, *mean, *m2;  // (tiles), (tiles, channels), (tiles, channels)
  Param gamma, beta;
  float *out_mean, *var, *invstd, *scale, *shift;  // (channels) each
  int64_t tiles, channels;
  double eps;
};

// aligned: mean and m2 start on 16 bytes.
void launch_bn_finalize(const BnFinalizeParams& params, bool aligned, const Target& target);

}  // namespace fusedres::cuda
