// conv_affine_act's instantiations: one file a dtype compiles them.
#pragma once

#include "cuda/conv/launch.cuh"
#include "cuda/conv_affine_act.h"

namespace fusedres::cuda {

template <typename T>
void launch_conv_affine_act(const ConvPlan& plan, const Target& target) {
  launch_conv<T, Raw, AffineAct>("conv_affine_act", plan, target);
  launch_split_epilogue<T, AffineAct>("conv_affine_act", plan, target);
}

}  // namespace fusedres::cuda
