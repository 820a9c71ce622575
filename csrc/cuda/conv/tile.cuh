// The shape of a block's work: a tile of the result, how warps share it, how deep the pipeline is.
#pragma once

namespace fusedres::cuda {

constexpr int kWarpSize = 32;

// One matrix instruction: 16 x 8 values of the result, 32 bytes of the reduction (see mma.cuh).
constexpr int kMmaM = 16, kMmaN = 8, kMmaDepthBytes = 32;

// kM x kN of the result a block, kWarpM x kWarpN a warp; the reduction advances by kDepthBytes a stage of
// kStages. kMinBlocks blocks share an SM: what __launch_bounds__ is told.
template <int kM_, int kN_, int kWarpM_, int kWarpN_, int kDepthBytes_, int kStages_, int kMinBlocks_>
struct Tile {
  static constexpr int kM = kM_, kN = kN_, kWarpM = kWarpM_, kWarpN = kWarpN_;
  static constexpr int kDepthBytes = kDepthBytes_, kStages = kStages_, kMinBlocks = kMinBlocks_;
  static constexpr int kWarpsM = kM / kWarpM, kWarpsN = kN / kWarpN;
  static constexpr int kThreads = kWarpsM * kWarpsN * kWarpSize;
  static constexpr int kMmasM = kWarpM / kMmaM, kMmasN = kWarpN / kMmaN;
  static constexpr int kSteps = kDepthBytes / kMmaDepthBytes;

  static_assert(kM % kWarpM == 0 && kN % kWarpN == 0, "warps tile the block");
  static_assert(
      kWarpM % kMmaM == 0 && kWarpN % (2 * kMmaN) == 0, "an ldmatrix.x4 of the right operand is two mma");
  static_assert(kDepthBytes % kMmaDepthBytes == 0 && kStages >= 2);
};

}  // namespace fusedres::cuda
