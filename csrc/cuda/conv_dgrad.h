// A convolution's input gradient with BatchNorm's backward on both sides.
#pragma once

#include "cuda/conv/plan.h"

namespace fusedres::cuda {

template <typename T>
void launch_conv_dgrad(const ConvPlan& plan, const Target& target);

}  // namespace fusedres::cuda
