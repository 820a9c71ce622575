// conv_wgrad: what its checks hand to its launches.
#pragma once

#include <cstdint>

#include "cuda/common/launch.h"
#include "cuda/conv/fast_division.h"

namespace fusedres::cuda {

// dw[k, (r, s, c)] = sum over output pixels m of dy[m, k] * x[pixel of m at tap (r, s), c], a group at a
// time.
struct ConvWgradParams {
  const void* x;   // (N, H, W, C)
  const void* dz;  // (N, P, Q, K)
  const void* y;   // (N, P, Q, K) or null
  // Per channel, each or null: x enters as relu(x * in_s + in_t), dy is p * dz + q * y + r.
  const float *in_s, *in_t, *p, *q, *r;
  float* parts;  // (splits, K, R * S * C / groups): each part of the pixels has a sum of its own
  int height, width, channels;
  int outputs;  // K
  int taps_w;   // S
  int stride_h, stride_w, padding_h, padding_w, dilation_h, dilation_w;
  int group_channels, group_outputs;  // C / groups, K / groups
  int columns;                        // R * S * C / groups
  int pixels;                         // N * P * Q
  int part_pixels;                    // of each part but the last
  int tiles_k;
  FastDivision out_width, out_pixels;  // Q, P * Q
  bool whole_outputs;                  // a group's outputs are whole 16-byte chunks
};

// Operands that change as they are loaded: neither, dy alone, or x too.
enum class WgradFormed { kNone, kGradient, kBoth };

// A block's tile of the result: outputs x columns, or in the ring kernel outputs x channels with all nine
// taps.
enum class WgradTile { k128x128, k64x128, k64x64, kRing };

// How many pixels of x the ring kernel holds before and after an output pixel, at most.
constexpr int kWgradMostHalo = 64;

struct ConvWgradLaunch {
  ConvWgradParams params;
  WgradTile tile;
  WgradFormed formed;
  bool same_pixels;   // 1 x 1, stride 1, no padding: an output pixel is the input pixel of the same number
  bool whole_chunks;  // a group's outputs and its channels are whole 16-byte chunks; else the tile is 64 x 64
  int tiles, groups, splits;
};

// dw (K, C / groups, R, S) as the sum of the parts in their order, rounded once; channels_last where it is
// told of one tap. A block sums `tile_channels` channels x `tile_taps` taps of an output: a run of dw, since
// either all taps are taken or one channel is.
struct ConvWgradReduceParams {
  const float* parts;
  void* dw;
  int64_t part_values;  // K * R * S * C / groups
  int splits, group_channels, taps;
  int tile_channels, tile_taps, tiles_channels, tiles_taps;
};

template <typename T>
void launch_conv_wgrad(const ConvWgradLaunch& call, const Target& target);
template <typename T>
void launch_conv_wgrad_reduce(const ConvWgradReduceParams& params, int outputs, const Target& target);

}  // namespace fusedres::cuda
