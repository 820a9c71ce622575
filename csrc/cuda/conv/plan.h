// Which kernel computes a convolution, with which tile, and in how many parts. Host only, free of torch.
#pragma once

#include "cuda/common/launch.h"
#include "cuda/conv/shape.h"

namespace fusedres::cuda {

enum class ConvKernel {
  kPointwise,  // one tap
  kPatch,      // taps of a few pixels' reach, read from a patch in shared memory
  kTaps,       // any taps: implicit GEMM
  kGathered,   // channels that do not come in whole 16-byte chunks
};

enum class ConvTile { k128x128, k128x64, k128x32, k64x64 };

struct TileSize {
  int m, n;
};
TileSize size_of(ConvTile tile);

// What a plan depends on beside the sizes. All tensors start on 16 bytes.
struct ConvTraits {
  int element_bytes;
  int sources;  // tensors that the source is formed from
  bool formed;  // and not taken as it is
};

// One launch, but for its pointers.
struct ConvPlan {
  ConvParams params;
  ConvKernel kernel;
  ConvTile tile;
  int tiles;                    // of pixels, of all classes
  int groups;                   // narrow ones are merged to 32 channels, their weights padded with zeros
  int group_rows, group_depth;  // result and source channels of a group before it was merged
  bool turned;                  // weights lie a row a source channel: a gradient's, as its forward's do
  int patch_bytes;              // shared memory, where the kernel is kPatch

  int64_t blocks() const { return static_cast<int64_t>(tiles) * params.tiles_n * groups; }
  // Bytes of the splits' accumulators; 0 without splits.
  int64_t partial_bytes() const;
};

ConvPlan plan_forward(const ConvShape& shape, const ConvTraits& traits, const DeviceFacts& device);
ConvPlan plan_gradient(
    const ConvShape& shape, int first_class, const ConvTraits& traits, const DeviceFacts& device);

}  // namespace fusedres::cuda
