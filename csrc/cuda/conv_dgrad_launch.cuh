// conv_dgrad's instantiations: one file a dtype compiles them.
#pragma once

#include <type_traits>

#include "cuda/conv/launch.cuh"
#include "cuda/conv/turned_weight_source.cuh"
#include "cuda/conv_dgrad.h"

namespace fusedres::cuda {

// Weights are read as the forward convolution's lie, a row a source channel, where fragments can be turned.
template <typename T, typename Tile>
using GradientWeights =
    std::conditional_t<turns_weights(sizeof(T)), TurnedWeightSource<T, Tile>, WeightSource<T, Tile>>;

template <typename T>
void launch_conv_dgrad(const ConvPlan& plan, const Target& target) {
  if (plan.params.prologue.scale != nullptr) {
    launch_conv<T, NormGradient, MaskedGradient, GradientWeights>("conv_dgrad", plan, target);
  } else {
    launch_conv<T, Raw, MaskedGradient, GradientWeights>("conv_dgrad", plan, target);
  }
  launch_split_epilogue<T, MaskedGradient>("conv_dgrad", plan, target);
}

}  // namespace fusedres::cuda
