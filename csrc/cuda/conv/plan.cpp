#include "cuda/conv/plan.h"

#include <algorithm>

namespace fusedres::cuda {
namespace {

constexpr int kDepthBytes = 64;       // of a pipeline stage, in every tile
constexpr int kFewestSplitSteps = 4;  // a split's stages: as many as the pipeline is deep
constexpr int kMostSplits = 16;

ConvKernel choose_kernel(const ConvParams& p, const ConvTraits& traits) {
  const int chunk = 16 / traits.element_bytes;
  if (p.depth % chunk != 0) return ConvKernel::kGathered;
  return p.classes == 1 && p.taps == 1 ? ConvKernel::kPointwise : ConvKernel::kTaps;
}

int64_t blocks_of(const ConvParams& p, int groups, ConvTile tile) {
  ConvParams counted = p;
  const int64_t tiles = number_tiles(counted, size_of(tile).m, size_of(tile).n);
  return tiles * counted.tiles_n * groups;
}

// The largest tile that gives every processor a block, and wastes no half of its columns.
ConvTile choose_tile(
    const ConvParams& p, int groups, ConvKernel kernel, const ConvTraits& traits, const DeviceFacts& device) {
  if (kernel == ConvKernel::kGathered) return ConvTile::k64x64;
  const bool wide = traits.element_bytes == 2 && kernel == ConvKernel::kPointwise;
  if (wide && p.columns > 64 && blocks_of(p, groups, ConvTile::k128x128) >= 2 * device.processors) {
    return ConvTile::k128x128;
  }
  return blocks_of(p, groups, ConvTile::k128x64) >= device.processors ? ConvTile::k128x64 : ConvTile::k64x64;
}

// Parts of the reduction, where there are too few tiles to occupy the device and each part keeps enough
// stages.
int choose_splits(const ConvPlan& plan, const ConvTraits& traits, const DeviceFacts& device) {
  if (plan.tile != ConvTile::k64x64 || plan.blocks() == 0) return 1;
  const ConvParams& p = plan.params;
  const int steps = p.taps * ceil_div(p.depth * traits.element_bytes, kDepthBytes);
  const int64_t wanted = device.processors / plan.blocks();
  const int splits = static_cast<int>(std::min<int64_t>({wanted, steps / kFewestSplitSteps, kMostSplits}));
  return std::max(1, splits);
}

ConvPlan plan(const ConvParams& params, int groups, const ConvTraits& traits, const DeviceFacts& device) {
  const int chunk = 16 / traits.element_bytes;
  ConvPlan plan{};
  plan.params = params;
  plan.groups = groups;
  plan.kernel = choose_kernel(params, traits);
  plan.tile = choose_tile(params, groups, plan.kernel, traits, device);
  plan.tiles = number_tiles(plan.params, size_of(plan.tile).m, size_of(plan.tile).n);
  plan.params.weight_depth = ceil_div(params.depth, chunk) * chunk;
  plan.params.aligned_out = params.columns % chunk == 0;
  plan.params.splits = choose_splits(plan, traits, device);
  return plan;
}

}  // namespace

TileSize size_of(ConvTile tile) {
  switch (tile) {
    case ConvTile::k128x128:
      return {128, 128};
    case ConvTile::k128x64:
      return {128, 64};
    default:
      return {64, 64};
  }
}

int64_t ConvPlan::partial_bytes() const {
  if (params.splits == 1) return 0;
  const TileSize size = size_of(tile);
  return blocks() * params.splits * size.m * size.n * static_cast<int64_t>(sizeof(float));
}

ConvPlan plan_forward(const ConvShape& shape, const ConvTraits& traits, const DeviceFacts& device) {
  return plan(forward_params(shape), shape.groups, traits, device);
}

ConvPlan plan_gradient(
    const ConvShape& shape, int first_class, const ConvTraits& traits, const DeviceFacts& device) {
  return plan(gradient_params(shape, first_class), shape.groups, traits, device);
}

}  // namespace fusedres::cuda
