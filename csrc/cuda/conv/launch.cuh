// The instantiations of the family for an op: which kernels exist, and how each is launched.
#pragma once

#include "cuda/conv/gemm_kernel.cuh"
#include "cuda/conv/plan.h"
#include "cuda/conv/tiles.cuh"

namespace fusedres::cuda {

template <typename Tile>
Grid conv_grid(const ConvPlan& plan, int splits, int shared_bytes) {
  return {
      dim3(
          static_cast<unsigned>(plan.tiles * plan.params.tiles_n), static_cast<unsigned>(plan.groups),
          static_cast<unsigned>(splits)),
      dim3(Tile::kThreads), shared_bytes};
}

template <
    typename T, typename Tile, Walk kWalk, typename Prologue, template <typename, typename> typename Epilogue>
void launch_gemm(const char* name, const ConvPlan& plan, const Target& target) {
  using Traits = GemmTraits<T, Tile, kWalk, Prologue, Epilogue>;
  const int splits = plan.params.splits;
  launch(
      name, conv_gemm_kernel<Traits>, conv_grid<Tile>(plan, splits, Traits::kSharedBytes), target,
      plan.params);
}

// Every tile of a walk. fp32 has half the columns at most: its 128 x 128 tile would be a GEMM of 64 x 64 in
// TF32.
template <typename T, Walk kWalk, typename Prologue, template <typename, typename> typename Epilogue>
void launch_tiles(const char* name, const ConvPlan& plan, const Target& target) {
  if constexpr (kWalk == Walk::kPointwise && sizeof(T) == 2) {
    if (plan.tile == ConvTile::k128x128) {
      return launch_gemm<T, Tile128x128, kWalk, Prologue, Epilogue>(name, plan, target);
    }
  }
  if constexpr (kWalk != Walk::kGathered) {
    if (plan.tile == ConvTile::k128x64) {
      return launch_gemm<T, Tile128x64, kWalk, Prologue, Epilogue>(name, plan, target);
    }
  }
  launch_gemm<T, Tile64x64, kWalk, Prologue, Epilogue>(name, plan, target);
}

template <typename T, typename Prologue, template <typename, typename> typename Epilogue>
void launch_conv(const char* name, const ConvPlan& plan, const Target& target) {
  switch (plan.kernel) {
    case ConvKernel::kPointwise:
      launch_tiles<T, Walk::kPointwise, Prologue, Epilogue>(name, plan, target);
      break;
    case ConvKernel::kTaps:
      launch_tiles<T, Walk::kTaps, Prologue, Epilogue>(name, plan, target);
      break;
    case ConvKernel::kGathered:
      launch_tiles<T, Walk::kGathered, Prologue, Epilogue>(name, plan, target);
      break;
  }
}

// The epilogue of a convolution whose reduction was split: only the 64 x 64 tile splits.
template <typename T, template <typename, typename> typename Epilogue>
void launch_split_epilogue(const char* name, const ConvPlan& plan, const Target& target) {
  if (plan.params.splits == 1) return;
  const Grid grid = conv_grid<Tile64x64>(plan, 1, Staging<Tile64x64>::kBytes);
  launch(name, conv_split_kernel<T, Tile64x64, Epilogue>, grid, target, plan.params);
}

}  // namespace fusedres::cuda
