#pragma once

#include "cuda/affine_act_maxpool_kernel.cuh"
#include "cuda/common/reduce.cuh"

namespace fusedres::cuda {

// One pooled pixel: its gradient, and the place in its window that the gradient goes to.
template <typename T, int kN>
struct PooledPixel {
  Pack<T, kN> gradient;
  Pack<uint8_t, kN> index;

  __device__ __forceinline__ void load(
      const AffineActMaxpoolBwdParams<T>& k, int64_t image, int64_t p, int64_t q, int64_t channel) {
    const PoolShape& shape = k.shape;
    if (p < shape.pooled_height && q < shape.pooled_width) {
      const int64_t at =
          ((image * shape.pooled_height + p) * shape.pooled_width + q) * shape.channels + channel;
      gradient = load_pack<T, kN>(k.dout + at);
      index = load_pack<uint8_t, kN>(k.index + at);
    } else {
#pragma unroll
      for (int i = 0; i < kN; ++i) {
        gradient.v[i] = T{};
        index.v[i] = 255;  // no place
      }
    }
  }
  __device__ __forceinline__ float at(int place, int i) const {
    return index.v[i] == place ? to_float(gradient.v[i]) : 0.0f;
  }
};

// The four windows that hold a 2 x 2 quad of input pixels (2p, 2q) to (2p + 1, 2q + 1).
template <typename T, int kN>
struct QuadWindows {
  PooledPixel<T, kN> here, right, below, below_right;

  // The gradient of the quad's pixel (h, w), each 0 or 1: an even row is in the middle (r = 1) of one window,
  // an odd one at the end (r = 2) of one and at the start (r = 0) of the next. So with columns.
  template <int kH, int kW>
  __device__ __forceinline__ float gradient(int i) const {
    float sum = here.at(3 * (1 + kH) + 1 + kW, i);
    if constexpr (kW == 1) sum += right.at(3 * (1 + kH), i);
    if constexpr (kH == 1) sum += below.at(1 + kW, i);
    if constexpr (kH == 1 && kW == 1) sum += below_right.at(0, i);
    return sum;
  }
};

template <typename T, int kN>
struct PoolBackward {
  const AffineActMaxpoolBwdParams<T>& k;
  int64_t channel;
  Floats<kN> v[3];  // scale, shift, mean
  ExactSums<kN> sum, dot;
  Floats<kN> quad_sum, quad_dot;

  __device__ PoolBackward(const AffineActMaxpoolBwdParams<T>& params, const RowWalk& walk)
      : k(params), channel(walk.channel), sum(ExactSums<kN>::none()), dot(sum) {
    load_vectors<kN>(walk, k.shape.channels, {k.s, k.t, k.mean}, v);
  }

  template <int kH, int kW>
  __device__ __forceinline__ void pixel(
      const QuadWindows<T, kN>& windows, int64_t image, int64_t p, int64_t q) {
    const int64_t h = 2 * p + kH, w = 2 * q + kW;
    if (h >= k.shape.height || w >= k.shape.width) return;
    const int64_t at = ((image * k.shape.height + h) * k.shape.width + w) * k.shape.channels + channel;
    const Floats<kN> y = load<T, kN>(k.y + at);
    Pack<T, kN> dz;
#pragma unroll
    for (int i = 0; i < kN; ++i) {
      const bool on = rounds_positive<T>(affine(y[i], v[0][i], v[1][i]));
      dz.v[i] = from_float<T>(on ? windows.template gradient<kH, kW>(i) : 0.0f);
      const float rounded = to_float(dz.v[i]);
      quad_sum[i] += rounded;
      quad_dot[i] += rounded * (y[i] - v[2][i]);
    }
    store_pack(k.dz + at, dz);
  }

  __device__ __forceinline__ void segment(const PoolSegment& at) {
    QuadWindows<T, kN> windows;
    windows.right.load(k, at.image, at.p, at.q, channel);
    windows.below_right.load(k, at.image, at.p + 1, at.q, channel);
    for (int64_t q = at.q; q < at.q_end; ++q) {
      windows.here = windows.right;
      windows.below = windows.below_right;
      windows.right.load(k, at.image, at.p, q + 1, channel);
      windows.below_right.load(k, at.image, at.p + 1, q + 1, channel);
      quad_sum = quad_dot = splat<kN>(0.0f);
      pixel<0, 0>(windows, at.image, at.p, q);
      pixel<0, 1>(windows, at.image, at.p, q);
      pixel<1, 0>(windows, at.image, at.p, q);
      pixel<1, 1>(windows, at.image, at.p, q);
      sum.add(quad_sum);
      dot.add(quad_dot);
    }
  }
};

template <typename T, int kN>
__global__ void __launch_bounds__(kRowThreads)
    affine_act_maxpool_bwd_kernel(const AffineActMaxpoolBwdParams<T> k) {
  __shared__ BlockSums<kN, 2> scratch[kRowThreads];
  const RowWalk walk(k.shape.channels, kN);
  PoolBackward<T, kN> backward(k, walk);
  const int64_t items = k.shape.images * k.shape.pooled_height * pool_segments(k.shape.pooled_width);
  for (int64_t item = walk.row; walk.active && item < items; item += walk.step)
    backward.segment(PoolSegment(k.shape, item));
  BlockSums<kN, 2> sums;
  sums.set(0, backward.sum);
  sums.set(1, backward.dot);
  sums.fold(scratch);
  sums.template write<1>(walk, k.shape.channels, k.invstd, k.sums);
}

}  // namespace fusedres::cuda
