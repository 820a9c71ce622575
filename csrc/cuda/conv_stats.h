// conv(relu(x * in_scale + in_shift), w), and the moments of its tiles.
#pragma once

#include "cuda/conv/plan.h"

namespace fusedres::cuda {

template <typename T>
void launch_conv_stats(const ConvPlan& plan, const Target& target);

}  // namespace fusedres::cuda
