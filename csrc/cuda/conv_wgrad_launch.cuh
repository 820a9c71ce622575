// conv_wgrad's instantiations, in a table: one file a dtype compiles them.
#pragma once

#include "cuda/conv_wgrad_any_kernel.cuh"
#include "cuda/conv_wgrad_kernel.cuh"
#include "cuda/conv_wgrad_reduce_kernel.cuh"
#include "cuda/conv_wgrad_ring_kernel.cuh"

namespace fusedres::cuda {

template <typename Traits>
void launch_wgrad_traits(const ConvWgradLaunch& call, const Grid& grid, const Target& target) {
  Grid sized = grid;
  sized.shared_bytes = Traits::kSharedBytes;
  launch("conv_wgrad", conv_wgrad_kernel<Traits>, sized, target, call.params);
}

template <typename T, int kM, int kN, WgradFormed kFormed>
void launch_wgrad_formed(const ConvWgradLaunch& call, const Grid& grid, const Target& target) {
  if (call.same_pixels) return launch_wgrad_traits<WgradTraits<T, kM, kN, kFormed, true>>(call, grid, target);
  launch_wgrad_traits<WgradTraits<T, kM, kN, kFormed, false>>(call, grid, target);
}

template <typename T, int kM, int kN>
void launch_wgrad_tile(const ConvWgradLaunch& call, const Grid& grid, const Target& target) {
  switch (call.formed) {
    case WgradFormed::kNone:
      return launch_wgrad_formed<T, kM, kN, WgradFormed::kNone>(call, grid, target);
    case WgradFormed::kGradient:
      return launch_wgrad_formed<T, kM, kN, WgradFormed::kGradient>(call, grid, target);
    case WgradFormed::kBoth:
      return launch_wgrad_formed<T, kM, kN, WgradFormed::kBoth>(call, grid, target);
  }
}

template <typename T, WgradFormed kFormed>
void launch_wgrad_ring_formed(const ConvWgradLaunch& call, const Grid& grid, const Target& target) {
  using Traits = WgradRingTraits<T, kFormed>;
  Grid sized = grid;
  sized.shared_bytes = Traits::kSharedBytes;
  launch("conv_wgrad", conv_wgrad_ring_kernel<Traits>, sized, target, call.params);
}

template <typename T>
void launch_wgrad_ring(const ConvWgradLaunch& call, const Grid& grid, const Target& target) {
  switch (call.formed) {
    case WgradFormed::kNone:
      return launch_wgrad_ring_formed<T, WgradFormed::kNone>(call, grid, target);
    case WgradFormed::kGradient:
      return launch_wgrad_ring_formed<T, WgradFormed::kGradient>(call, grid, target);
    case WgradFormed::kBoth:
      return launch_wgrad_ring_formed<T, WgradFormed::kBoth>(call, grid, target);
  }
}

template <typename T>
void launch_conv_wgrad(const ConvWgradLaunch& call, const Target& target) {
  const Grid grid{
      dim3(
          static_cast<unsigned>(call.tiles), static_cast<unsigned>(call.groups),
          static_cast<unsigned>(call.splits)),
      dim3(kWgradThreads)};
  if (!call.whole_chunks) return launch("conv_wgrad", conv_wgrad_any_kernel<T>, grid, target, call.params);
  if constexpr (sizeof(T) == 2) {  // fp32's larger tiles would not fit twice, nor at all into 99 KB
    if (call.tile == WgradTile::kRing) return launch_wgrad_ring<T>(call, grid, target);
    if (call.tile == WgradTile::k128x128) return launch_wgrad_tile<T, 128, 128>(call, grid, target);
    if (call.tile == WgradTile::k64x128) return launch_wgrad_tile<T, 64, 128>(call, grid, target);
  }
  launch_wgrad_tile<T, 64, 64>(call, grid, target);
}

template <typename T>
void launch_conv_wgrad_reduce(const ConvWgradReduceParams& params, int outputs, const Target& target) {
  const Grid grid{
      dim3(
          static_cast<unsigned>(outputs), static_cast<unsigned>(params.tiles_channels),
          static_cast<unsigned>(params.tiles_taps)),
      dim3(kWgradReduceThreads)};
  launch("conv_wgrad", conv_wgrad_reduce_kernel<T>, grid, target, params);
}

}  // namespace fusedres::cuda
