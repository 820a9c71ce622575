// The instantiations of the family for an op: which kernels exist, and how each is launched.
#pragma once

#include "cuda/conv/gemm_kernel.cuh"
#include "cuda/conv/patch_kernel.cuh"
#include "cuda/conv/plan.h"
#include "cuda/conv/tiles.cuh"
#include "cuda/conv/weight_source.cuh"

namespace fusedres::cuda {

template <typename Tile>
Grid conv_grid(const ConvPlan& plan, int splits, int shared_bytes) {
  return {
      dim3(
          static_cast<unsigned>(plan.tiles * plan.params.tiles_n), static_cast<unsigned>(plan.groups),
          static_cast<unsigned>(splits)),
      dim3(Tile::kThreads), shared_bytes};
}

// A prologue, an epilogue and how weights lie, over every kernel and tile there is. fp32 has no 128 x 128
// tile: its products in TF32 have half the rate, so that a tile half as large has as much to do for each
// byte.
template <
    typename T, typename Prologue, template <typename, typename> typename Epilogue,
    template <typename, typename> typename Weights>
struct ConvFamily {
  const char* name;
  const ConvPlan& plan;
  const Target& target;

  template <Walk kWalk, typename Tile>
  void gemm() const {
    using Traits = GemmTraits<T, Tile, kWalk, Prologue, Epilogue, Weights>;
    const Grid grid = conv_grid<Tile>(plan, plan.params.splits, Traits::kSharedBytes);
    launch(name, conv_gemm_kernel<Traits>, grid, target, plan.params);
  }

  template <int kStep, typename Tile>
  void patch() const {
    using Traits = PatchTraits<T, Tile, kStep, Prologue, Epilogue, Weights>;
    launch(name, conv_patch_kernel<Traits>, conv_grid<Tile>(plan, 1, plan.patch_bytes), target, plan.params);
  }

  void pointwise() const {
    if constexpr (sizeof(T) == 2) {
      if (plan.tile == ConvTile::k128x128) return gemm<Walk::kPointwise, Tile128x128>();
    }
    if (plan.tile == ConvTile::k128x64) return gemm<Walk::kPointwise, Tile128x64>();
    gemm<Walk::kPointwise, Tile64x64>();
  }

  template <int kStep>
  void patches_at() const {
    if constexpr (sizeof(T) == 2) {
      if (plan.tile == ConvTile::k128x128) return patch<kStep, Tile128x128>();
    }
    if (plan.tile == ConvTile::k128x64) return patch<kStep, Tile128x64>();
    if (plan.tile == ConvTile::k128x32) return patch<kStep, Tile128x32>();
    if constexpr (kStep == 1) patch<1, Tile64x64>();
  }

  // A gradient walks its source pixel by pixel, whatever the stride.
  void patches() const {
    if constexpr (Epilogue<T, Tile64x64>::kForward) {
      if (plan.params.patch.step == 2) return patches_at<2>();
    }
    patches_at<1>();
  }

  void taps() const {
    if (plan.tile == ConvTile::k128x64) return gemm<Walk::kTaps, Tile128x64>();
    gemm<Walk::kTaps, Tile64x64>();
  }

  void run() const {
    switch (plan.kernel) {
      case ConvKernel::kPointwise:
        return pointwise();
      case ConvKernel::kPatch:
        return patches();
      case ConvKernel::kTaps:
        return taps();
      case ConvKernel::kGathered:
        return gemm<Walk::kGathered, Tile64x64>();
    }
  }
};

template <
    typename T, typename Prologue, template <typename, typename> typename Epilogue,
    template <typename, typename> typename Weights = WeightSource>
void launch_conv(const char* name, const ConvPlan& plan, const Target& target) {
  ConvFamily<T, Prologue, Epilogue, Weights>{name, plan, target}.run();
}

// The epilogue of a convolution whose reduction was split: only the 64 x 64 tile splits.
template <typename T, template <typename, typename> typename Epilogue>
void launch_split_epilogue(const char* name, const ConvPlan& plan, const Target& target) {
  if (plan.params.splits == 1) return;
  const Grid grid = conv_grid<Tile64x64>(plan, 1, Staging<Tile64x64>::kBytes);
  launch(name, conv_split_kernel<T, Tile64x64, Epilogue>, grid, target, plan.params);
}

}  // namespace fusedres::cuda
