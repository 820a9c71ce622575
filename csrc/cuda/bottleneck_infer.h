// bottleneck_infer: what its checks hand to its launch, and what a block needs on chip.
#pragma once

#include <cstdint>
#include <iterator>

#include "cuda/common/launch.h"

namespace fusedres::cuda {

// out = relu(affine(conv1x1(a2, w3)) + skip), a2 = relu(affine(conv3x3(a1, w2))),
// a1 = relu(affine(conv1x1(x, w1))); skip is x, or affine(conv1x1(x, wd)). Weights are rows of a result
// channel's taps and source channels.
struct BottleneckInferParams {
  const void* x;  // (N, H, W, C)
  const void *w1, *w2, *w3, *wd;
  const float *s1, *t1, *s2, *t2, *s3, *t3, *sd, *td;
  void* out;  // (N, H, W, K)
  int height, width, channels, outputs;
  int tiles_h, tiles_w, tiles;
};

// What a block computes at a time: kTile x kTile output pixels; its 1 x 1 runs on a border of one more.
constexpr int kBottleneckTile = 14;
constexpr int kBottleneckHalo = kBottleneckTile + 2;  // 16: a row of it is a row of matrix instructions
constexpr int kBottleneckThreads = 256;
constexpr int kBottleneckXDepth = 32;  // channels of x a step
constexpr int kBottleneckDepth = 64;   // channels of an intermediate a step

// How a block runs: its middle channels, whether all weights stay in shared memory, and its skip.
struct BottleneckInferVariant {
  int middle;  // 64 or 128
  bool resident;
  bool downsample;
  int stages;  // steps whose operands are under way or in use

  // Rows of an intermediate are 16 bytes longer than their values, so that 8 neighbouring ones, wherever they
  // start, lie in different banks; two more are read, but not used, by the last row's last pixels.
  constexpr int pitch() const { return 2 * middle + 16; }
  constexpr int inner_bytes() const { return (kBottleneckHalo * kBottleneckHalo + 2) * pitch(); }
  constexpr int x_bytes() const { return kBottleneckHalo * kBottleneckHalo * 2 * kBottleneckXDepth; }
  constexpr int stage_bytes() const { return x_bytes() + (resident ? 0 : 2 * middle * kBottleneckXDepth); }
  constexpr int64_t weight_bytes(int64_t channels, int64_t outputs) const {
    const int64_t values = middle * channels + 9 * middle * middle + outputs * middle;
    return resident ? 2 * (values + (downsample ? outputs * channels : 0)) : 0;
  }
  constexpr int64_t shared_bytes(int64_t channels, int64_t outputs) const {
    return inner_bytes() + stages * stage_bytes() + weight_bytes(channels, outputs);
  }
};

// The compiled variants, the better ones first.
constexpr BottleneckInferVariant kBottleneckVariants[] = {
    {64, true, false, 3}, {64, false, false, 3},  {64, true, true, 2},
    {64, false, true, 3}, {128, false, false, 3},
};

// The number of the best variant that fits into `shared_bytes`, or -1.
constexpr int bottleneck_variant(
    int64_t channels, int64_t middle, int64_t outputs, bool downsample, int64_t shared_bytes) {
  if (channels % kBottleneckXDepth != 0 || outputs % middle != 0) return -1;
  for (int i = 0; i < static_cast<int>(std::size(kBottleneckVariants)); ++i) {
    const BottleneckInferVariant& v = kBottleneckVariants[i];
    if (v.middle == middle && v.downsample == downsample &&
        v.shared_bytes(channels, outputs) <= shared_bytes) {
      return i;
    }
  }
  return -1;
}

// `variant` numbers kBottleneckVariants.
template <typename T>
void launch_bottleneck_infer(const BottleneckInferParams& params, int variant, const Target& target);

}  // namespace fusedres::cuda
