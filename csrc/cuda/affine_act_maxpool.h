// The stem: maxpool(relu(y * s + t)) over 3 x 3 windows, stride 2, padding 1, and its backward.
#pragma once

#include <cstdint>

#include "cuda/common/launch.h"

namespace fusedres::cuda {

// Of a map and of its pooled map.
struct PoolShape {
  int64_t images, height, width, pooled_height, pooled_width, channels;
};

template <typename T>
struct AffineActMaxpoolParams {
  const T* y;
  const float *s, *t;
  T* out;
  uint8_t* index;
  PoolShape shape;
};

template <typename T>
struct AffineActMaxpoolBwdParams {
  const T *dout, *y;
  const uint8_t* index;
  const float *s, *t, *mean, *invstd;
  T* dz;
  float* sums;  // (2 * blocks, channels): of dz and of dz * x_hat
  PoolShape shape;
};

template <typename T>
void launch_affine_act_maxpool(const AffineActMaxpoolParams<T>& params, bool aligned, const Target& target);

// The backward's grid; its blocks.x is the number of parts that the sums have.
template <typename T>
Grid affine_act_maxpool_bwd_grid(const PoolShape& shape, bool aligned, const Target& target);

template <typename T>
void launch_affine_act_maxpool_bwd(
    const AffineActMaxpoolBwdParams<T>& params, const Grid& grid, bool aligned, const Target& target);

}  // namespace fusedres::cuda
