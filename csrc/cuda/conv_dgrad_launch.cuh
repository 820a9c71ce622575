// conv_dgrad's instantiations: one file a dtype compiles them.
#pragma once

#include "cuda/conv/launch.cuh"
#include "cuda/conv_dgrad.h"

namespace fusedres::cuda {

template <typename T>
void launch_conv_dgrad(const ConvPlan& plan, const Target& target) {
  if (plan.params.prologue.scale != nullptr) {
    launch_conv<T, NormGradient, MaskedGradient>("conv_dgrad", plan, target);
  } else {
    launch_conv<T, Raw, MaskedGradient>("conv_dgrad", plan, target);
  }
  launch_split_epilogue<T, MaskedGradient>("conv_dgrad", plan, target);
}

}  // namespace fusedres::cuda
