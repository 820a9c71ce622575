// bottleneck_infer's instantiations: one file a dtype compiles them.
#pragma once

#include <algorithm>

#include "cuda/bottleneck_infer_kernel.cuh"

namespace fusedres::cuda {

template <typename T, int kVariant>
void launch_bottleneck_variant(const BottleneckInferParams& params, const Target& target) {
  constexpr BottleneckInferVariant kChosen = kBottleneckVariants[kVariant];
  using Traits = BottleneckTraits<T, kChosen.middle, kChosen.resident, kChosen.downsample, kChosen.stages>;
  const Grid grid{
      dim3(static_cast<unsigned>(std::min(params.tiles, target.device.processors))), dim3(kBottleneckThreads),
      static_cast<int>(kChosen.shared_bytes(params.channels, params.outputs))};
  launch("bottleneck_infer", bottleneck_infer_kernel<Traits>, grid, target, params);
}

template <typename T>
void launch_bottleneck_infer(const BottleneckInferParams& params, int variant, const Target& target) {
  static_assert(std::size(kBottleneckVariants) == 5, "a case each");
  switch (variant) {
    case 0:
      return launch_bottleneck_variant<T, 0>(params, target);
    case 1:
      return launch_bottleneck_variant<T, 1>(params, target);
    case 2:
      return launch_bottleneck_variant<T, 2>(params, target);
    case 3:
      return launch_bottleneck_variant<T, 3>(params, target);
    default:
      return launch_bottleneck_variant<T, 4>(params, target);
  }
}

}  // namespace fusedres::cuda
