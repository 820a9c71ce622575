// The weight gradient where channels of a group are not whole 16-byte chunks, such as the stem's three:
// operands are gathered value by value into registers, formed there, and stored for the tensor cores.
#pragma once

#include "cuda/conv_wgrad_kernel.cuh"

namespace fusedres::cuda {

template <typename T_>
struct WgradAnyTraits {
  using T = T_;
  static constexpr int kM = 64, kN = 64;
  using LeftTile = PixelTile<T, kWgradPixels, kM>;
  using RightTile = PixelTile<T, kWgradPixels, kN>;
  using Left = PixelFragments<T, kWgradPixels, kM, kM / 2, true>;
  using Right = PixelFragments<T, kWgradPixels, kN, kN / 2, false>;
  static constexpr int kSteps = kWgradPixels / Left::kDepth;
  static constexpr int kSlotBytes = LeftTile::kBytes + RightTile::kBytes;
};

// Where a column of the result reads x: its channel, in_s and in_t, and the offsets of its tap.
struct WgradColumn {
  int channel;  // negative past the last column
  int row, column;
  float s, t;
};

__device__ __forceinline__ WgradColumn wgrad_column(const ConvWgradParams& p, int column, int group) {
  if (column >= p.columns) return {-1, 0, 0, 0.0f, 0.0f};
  const int tap = column / p.group_channels;
  const int channel = group * p.group_channels + column - tap * p.group_channels;
  const bool formed = p.in_s != nullptr;
  return {
      channel, tap / p.taps_w * p.dilation_h - p.padding_h, tap % p.taps_w * p.dilation_w - p.padding_w,
      formed ? p.in_s[channel] : 1.0f, formed ? p.in_t[channel] : 0.0f};
}

// A thread's chunk of dy, in each of kRows pixels of a stage.
template <typename Traits>
struct AnyGradientRows {
  using T = typename Traits::T;
  using Chunks = ThreadChunks<typename Traits::LeftTile>;
  Chunks chunks;
  int channel, count;  // of the chunk: its first, and how many there are
  bool aligned;
  Values<T> p, q, r;
  uint4 dz[Chunks::kRows], y[Chunks::kRows];

  __device__ AnyGradientRows(const ConvWgradParams& params, int first, int group) {
    const int output = first + chunks.chunk * kPerChunk<T>;
    count = min(max(params.group_outputs - output, 0), kPerChunk<T>);
    channel = group * params.group_outputs + output;
    aligned = params.whole_outputs;
    p = coefficients<T, false>(params.p, channel, count, 1.0f);
    q = coefficients<T, false>(params.q, channel, count, 0.0f);
    r = coefficients<T, false>(params.r, channel, count, 0.0f);
  }

  __device__ void gather(const ConvWgradParams& params, int first_pixel, int end) {
#pragma unroll
    for (int i = 0; i < Chunks::kRows; ++i) {
      const int pixel = first_pixel + chunks.row(i);
      const int64_t at = static_cast<int64_t>(pixel) * params.outputs + channel;
      dz[i] = y[i] = {0, 0, 0, 0};
      if (pixel >= end || count == 0) continue;
      dz[i] = load_chunk<T>(params.dz, at, count, aligned);
      if (params.y != nullptr) y[i] = load_chunk<T>(params.y, at, count, aligned);
    }
  }

  __device__ void store(const ConvWgradParams& params, int first_pixel, int end, unsigned char* tile) const {
#pragma unroll
    for (int i = 0; i < Chunks::kRows; ++i) {
      const bool inside = first_pixel + chunks.row(i) < end && count > 0;
      const uint4 dy = params.p == nullptr ? dz[i] : output_gradient<T>(dz[i], y[i], p, q, r);
      *reinterpret_cast<uint4*>(tile + chunks.at(i)) = keep_or_zero(dy, inside);
    }
  }
};

// A thread's chunk of columns of x, formed as it is gathered.
template <typename Traits>
struct AnyInputRows {
  using T = typename Traits::T;
  using Chunks = ThreadChunks<typename Traits::RightTile>;
  Chunks chunks;
  uint4 x[Chunks::kRows];

  __device__ void gather(const ConvWgradParams& p, int first_pixel, int end, const WgradColumn* columns) {
#pragma unroll
    for (int i = 0; i < Chunks::kRows; ++i) {
      const int pixel = first_pixel + chunks.row(i);
      uint32_t within, q;
      const uint32_t n = p.out_pixels.divide(static_cast<uint32_t>(pixel), within);
      const int row = static_cast<int>(p.out_width.divide(within, q)) * p.stride_h;
      const int column = static_cast<int>(q) * p.stride_w;
      Values<T> values;
#pragma unroll
      for (int e = 0; e < kPerChunk<T>; ++e) {
        const WgradColumn c = columns[chunks.chunk * kPerChunk<T> + e];
        const int h = row + c.row, w = column + c.column;
        const bool inside = pixel < end && c.channel >= 0 &&
                            static_cast<uint32_t>(h) < static_cast<uint32_t>(p.height) &&
                            static_cast<uint32_t>(w) < static_cast<uint32_t>(p.width);
        const int64_t at = (static_cast<int64_t>(n) * p.height + h) * p.width + w;
        values[e] = inside ? to_float(static_cast<const T*>(p.x)[at * p.channels + c.channel]) : 0.0f;
        if (p.in_s != nullptr && inside) values[e] = relu(affine(values[e], c.s, c.t));
      }
      x[i] = to_chunk<T>(values);
    }
  }

  __device__ void store(unsigned char* tile) const {
#pragma unroll
    for (int i = 0; i < Chunks::kRows; ++i) *reinterpret_cast<uint4*>(tile + chunks.at(i)) = x[i];
  }
};

// The grid of conv_wgrad_kernel. A stage is gathered while the one before is summed.
template <typename T>
__global__ void __launch_bounds__(kWgradThreads, 2)
    conv_wgrad_any_kernel(const __grid_constant__ ConvWgradParams p) {
  using Traits = WgradAnyTraits<T>;
  using Left = typename Traits::Left;
  using Right = typename Traits::Right;
  __shared__ __align__(128) unsigned char slots[2][Traits::kSlotBytes];
  __shared__ WgradColumn columns[Traits::kN];

  const WgradBlock block(p, Traits::kM, Traits::kN);
  for (int i = threadIdx.x; i < Traits::kN; i += kWgradThreads) {
    columns[i] = wgrad_column(p, block.first_column + i, block.group);
  }
  __syncthreads();
  AnyGradientRows<Traits> gradient(p, block.first_output, block.group);
  AnyInputRows<Traits> input;
  auto gather = [&](int stage) {
    const int first = block.begin + stage * kWgradPixels;
    gradient.gather(p, first, block.end);
    input.gather(p, first, block.end, columns);
  };
  auto store = [&](int stage) {
    unsigned char* const slot = slots[stage % 2];
    gradient.store(p, block.begin + stage * kWgradPixels, block.end, slot);
    input.store(slot + Traits::LeftTile::kBytes);
  };

  const WgradWarp<Traits> warp;
  PixelProduct<Left, Right> product;
  gather(0);
  store(0);
  __syncthreads();
  for (int stage = 0; stage < block.stages; ++stage) {
    gather(stage + 1);  // past the end: zeros
    const unsigned char* const slot = slots[stage % 2];
#pragma unroll
    for (int step = 0; step < Traits::kSteps; ++step) {
      Left left;
      Right right;
      left.load(slot, step, warp.left_offset);
      right.load(slot + Traits::LeftTile::kBytes, step, warp.right_offset);
      product.template add<T>(left, right);
    }
    store(stage + 1);
    __syncthreads();
  }
  store_part(p, block, warp, product);
}

}  // namespace fusedres::cuda
