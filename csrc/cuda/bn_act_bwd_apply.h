// dy = p * dz + q * y + r, and dy2 of a second branch with the same dz.
#pragma once

#include <cstdint>

#include "cuda/common/launch.h"

namespace fusedres::cuda {

// Null: no second branch.
template <typename T>
struct BnActBwdApplyParams {
  const T *dz, *y, *y2;
  const float *p, *q, *r, *p2, *q2, *r2;
  T *dy, *dy2;
  int64_t rows, channels;
};

// aligned: everything starts on 16 bytes.
template <typename T>
void launch_bn_act_bwd_apply(const BnActBwdApplyParams<T>& params, bool aligned, const Target& target);

}  // namespace fusedres::cuda
