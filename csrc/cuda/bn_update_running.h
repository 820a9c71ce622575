// Running statistics move towards a batch's, in place, in one launch.
#pragma once

#include <cstdint>

#include "cuda/common/launch.h"
#include "cuda/common/param.h"

namespace fusedres::cuda {

struct BnUpdateRunningParams {
  Param running_mean, running_var;  // written
  Param mean, var;
  int64_t* batches;  // null: not counted
  int64_t channels;
  double unbiased;  // the biased variance times this is the unbiased one
  double momentum;
  bool cumulative;  // the factor is 1 / batches instead
  bool empty;       // the batch counts and moves nothing
};

void launch_bn_update_running(const BnUpdateRunningParams& params, const Target& target);

}  // namespace fusedres::cuda
