// conv_stats' instantiations: one file a dtype compiles them.
#pragma once

#include "cuda/conv/launch.cuh"
#include "cuda/conv_stats.h"

namespace fusedres::cuda {

template <typename T>
void launch_conv_stats(const ConvPlan& plan, const Target& target) {
  if (plan.params.prologue.scale != nullptr) {
    launch_conv<T, Activated, Moments>("conv_stats", plan, target);
  } else {
    launch_conv<T, Raw, Moments>("conv_stats", plan, target);
  }
  launch_split_epilogue<T, Moments>("conv_stats", plan, target);
}

}  // namespace fusedres::cuda
