// Running statistics move towards a batch's, in place: several layers' in one launch.
#pragma once

#include <cstdint>

#include "cuda/common/launch.h"
#include "cuda/common/param.h"

namespace fusedres::cuda {

// A launch's, at most: a bottleneck has three, and a downsample.
constexpr int kRunningLayers = 4;

struct RunningLayer {
  Param running_mean, running_var;  // written
  Param mean, var;
  int64_t* batches;  // null: not counted
  int64_t channels;
  double unbiased;  // the biased variance times this is the unbiased one
  bool empty;       // the batch counts and moves nothing
};

struct BnUpdateRunningParams {
  RunningLayer layers[kRunningLayers];
  double momentum;
  bool cumulative;  // the factor is 1 / batches instead
};

void launch_bn_update_running(const BnUpdateRunningParams& params, int layers, const Target& target);

}  // namespace fusedres::cuda
