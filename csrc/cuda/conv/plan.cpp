#include "cuda/conv/plan.h"

#include <algorithm>

#include "cuda/conv/patch.h"

namespace fusedres::cuda {
namespace {

constexpr int kDepthBytes = 64;       // of a pipeline stage, in every tile
constexpr int kFewestSplitSteps = 4;  // a split's stages: as many as the pipeline is deep
constexpr int kMostSplits = 16;
constexpr int kMergedChannels = 32;  // a stage of 16-bit channels, and the columns of the narrowest tile

// Groups of fewer channels than a stage holds are computed several at once, with zeros between them: the
// matrix instructions take no fewer, and 3x3 convolutions of 4 channels a group have bandwidth as their limit
// even so (144 operations a byte).
bool is_narrow(const ConvShape& shape) {
  const int width = shape.c / shape.groups;
  return shape.groups > 1 && shape.c == shape.k && shape.c % kMergedChannels == 0 &&
         width < kMergedChannels && kMergedChannels % width == 0;
}

struct Planner {
  const ConvTraits& traits;
  const DeviceFacts& device;
  ConvPlan plan;

  bool enough_blocks(ConvTile tile, int blocks_a_processor) const {
    ConvParams counted = plan.params;
    const TileSize size = size_of(tile);
    const int64_t tiles = number_tiles(counted, size.m, size.n);
    return tiles * counted.tiles_n * plan.groups >=
           static_cast<int64_t>(blocks_a_processor) * device.processors;
  }

  // The largest tile that gives the processors work enough, and wastes no half of its columns.
  ConvTile choose_tile(bool with_largest) const {
    if (plan.params.columns <= 32) return ConvTile::k128x32;
    if (with_largest && traits.element_bytes == 2 && plan.params.columns > 64 &&
        enough_blocks(ConvTile::k128x128, 2)) {
      return ConvTile::k128x128;
    }
    return enough_blocks(ConvTile::k128x64, 1) ? ConvTile::k128x64 : ConvTile::k64x64;
  }

  void use(ConvKernel kernel, ConvTile tile) {
    plan.kernel = kernel;
    plan.tile = tile;
  }

  bool use_patch() {
    const ConvTile tile = choose_tile(true);
    // At stride 2 the smallest tile is left to the implicit GEMM: where tiles are few, it splits its
    // reduction.
    if (plan.params.source_step_h > 1 && tile == ConvTile::k64x64) return false;
    const TileSize size = size_of(tile);
    if (!plan_patch(plan.params, size.m)) return false;
    const PatchParams& patch = plan.params.patch;
    plan.patch_bytes = patch_shared_bytes(patch.slots, patch.step, 1 + traits.sources, size.m, size.n);
    if (plan.patch_bytes > device.shared_bytes) return false;
    use(ConvKernel::kPatch, tile);
    return true;
  }

  void choose_kernel() {
    const ConvParams& p = plan.params;
    if (p.flat || p.depth % (16 / traits.element_bytes) != 0)
      return use(ConvKernel::kGathered, ConvTile::k64x64);
    if (use_patch()) return;
    const bool one_tap = p.classes == 1 && p.taps == 1;
    const ConvTile tile = choose_tile(one_tap);
    use(one_tap ? ConvKernel::kPointwise : ConvKernel::kTaps,
        tile == ConvTile::k128x32 ? ConvTile::k64x64 : tile);
  }

  // Parts of the reduction, where there are too few tiles to occupy the device and each part keeps enough
  // stages.
  int choose_splits() const {
    if (plan.kernel == ConvKernel::kPatch || plan.tile != ConvTile::k64x64 || plan.blocks() == 0) return 1;
    const ConvParams& p = plan.params;
    const int steps = p.taps * ceil_div(p.depth * traits.element_bytes, kDepthBytes);
    const int64_t wanted = device.processors / plan.blocks();
    const int splits = static_cast<int>(std::min<int64_t>({wanted, steps / kFewestSplitSteps, kMostSplits}));
    return std::max(1, splits);
  }

  // Few channels, such as an image's 3, would leave most of a stage empty. Where a row's taps are
  // neighbouring pixels their values lie behind each other, and the row is walked as one tap: 7 x 7 taps of 3
  // are 7 of 21.
  void flatten_rows() {
    ConvParams& p = plan.params;
    PixelClass& c = p.pixel_class[0];
    const bool apart = p.classes != 1 || c.tap_step_w != 1 || c.weight_step_w != 1 || plan.groups != 1;
    if (apart || traits.formed || c.taps_w == 1 || p.depth % (16 / traits.element_bytes) == 0) return;
    p.flat = true;
    p.depth *= c.taps_w;
    p.taps = c.taps_h;
    c.taps_w = 1;
    c.weight_first = 0;
    c.weight_step_h = 1;
  }

  ConvPlan finished() {
    const int chunk = 16 / traits.element_bytes;
    flatten_rows();
    ConvParams& p = plan.params;
    p.weight_depth = ceil_div(plan.turned ? p.columns : p.depth, chunk) * chunk;
    p.aligned_out = p.columns % chunk == 0;
    choose_kernel();
    plan.tiles = number_tiles(p, size_of(plan.tile).m, size_of(plan.tile).n);
    p.splits = choose_splits();
    return plan;
  }
};

ConvShape merged(ConvShape shape) {
  if (is_narrow(shape)) shape.groups = shape.c / kMergedChannels;
  return shape;
}

}  // namespace

TileSize size_of(ConvTile tile) {
  switch (tile) {
    case ConvTile::k128x128:
      return {128, 128};
    case ConvTile::k128x64:
      return {128, 64};
    case ConvTile::k128x32:
      return {128, 32};
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
  const ConvShape used = merged(shape);
  Planner planner{traits, device, {}};
  planner.plan.params = forward_params(used);
  planner.plan.groups = used.groups;
  planner.plan.group_rows = shape.k / shape.groups;
  planner.plan.group_depth = shape.c / shape.groups;
  return planner.finished();
}

ConvPlan plan_gradient(
    const ConvShape& shape, int first_class, const ConvTraits& traits, const DeviceFacts& device) {
  const ConvShape used = merged(shape);
  Planner planner{traits, device, {}};
  planner.plan.params = gradient_params(used, first_class);
  planner.plan.groups = used.groups;
  planner.plan.group_rows = shape.c / shape.groups;
  planner.plan.group_depth = shape.k / shape.groups;
  planner.plan.turned = turns_weights(traits.element_bytes);
  return planner.finished();
}

}  // namespace fusedres::cuda
