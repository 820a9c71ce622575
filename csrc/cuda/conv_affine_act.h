// relu(conv(x, w) * scale + shift + residual).
#pragma once

#include "cuda/conv/plan.h"

namespace fusedres::cuda {

template <typename T>
void launch_conv_affine_act(const ConvPlan& plan, const Target& target);

}  // namespace fusedres::cuda
