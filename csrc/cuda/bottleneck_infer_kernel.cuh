// A whole bottleneck a launch: a block computes 14 x 14 output pixels at a time, with both intermediates in
// shared memory.
#pragma once

#include "cuda/bottleneck_infer_feed.cuh"
#include "cuda/conv/operand.cuh"
#include "cuda/conv/tile.cuh"

namespace fusedres::cuda {

// Eight warps: four groups of pixel rows x two halves of the channels. A matrix instruction's 16 rows are a
// pixel row of the tile.
template <typename Traits>
struct BottleneckWarp {
  int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  int half = warp / 4;
  // Of 14 rows the groups have 4, 4, 3 and 3; warps w and w + 4, which share a scheduler, 7 together.
  int group = half == 0 ? warp : 7 - warp;

  __device__ int first_row(int rows) const { return rows == kBottleneckHalo || group < 3 ? 4 * group : 11; }
  __device__ int count(int rows) const { return rows == kBottleneckHalo || group < 2 ? 4 : 3; }
};

// A warp's sums: up to 4 pixel rows x half of kMiddle channels.
template <typename Traits>
struct BottleneckSums {
  static constexpr int kMmas = Traits::kMiddle / 2 / kMmaN;
  static constexpr int kGroups = kMmas / 4;  // of 32 channels, of which a thread has 8 in a row
  float sums[4][kMmas][4];

  __device__ void clear() {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int j = 0; j < kMmas; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) sums[i][j][e] = 0.0f;
      }
    }
  }

  // One matrix instruction's depth: `left(i)` is the shared address of the lane's chunk of pixel row i.
  template <int kChunks, typename Left>
  __device__ void add(
      const BottleneckWarp<Traits>& w, int rows, const unsigned char* weights, int step, const Left& left) {
    uint32_t b[kMmas / 2][4];
#pragma unroll
    for (int j = 0; j < kMmas / 2; ++j) {
      const int row = w.half * (Traits::kMiddle / 2) + j * 16 + w.lane / 16 * 8 + w.lane % 8;
      ldmatrix_x4(b[j], shared_address(weights + Swizzle<kChunks>::at(row, 2 * step + w.lane / 8 % 2)));
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i == 3 && rows == 3) break;
      uint32_t a[4];
      ldmatrix_x4(a, left(i));
#pragma unroll
      for (int j = 0; j < kMmas; ++j) {
        mma<typename Traits::T>(sums[i][j], a, b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
      }
    }
  }

  // The thread's 8 channels of a group at pixel lane / 4 + 8 * half of row i.
  __device__ Values<typename Traits::T> values(int i, int half, int group) const {
    Values<typename Traits::T> v;
#pragma unroll
    for (int e = 0; e < 8; ++e) v[e] = sums[i][group * 4 + e / 2][half * 2 + e % 2];
    return v;
  }
};

// 32 channels of x, from a stage, by weights of as many.
template <typename Traits>
__device__ __forceinline__ void add_x(
    BottleneckSums<Traits>& sums, const BottleneckWarp<Traits>& w, int first_row, int rows,
    const unsigned char* x, const unsigned char* weights) {
  constexpr int kChunks = kBottleneckXDepth / 8;
#pragma unroll
  for (int step = 0; step < kBottleneckXDepth / 16; ++step) {
    sums.template add<kChunks>(w, rows, weights, step, [&](int i) {
      const int pixel = (first_row + i) * kBottleneckHalo + w.lane % 16;
      return shared_address(x + Swizzle<kChunks>::at(pixel, 2 * step + w.lane / 16));
    });
  }
}

// 64 channels of an intermediate; `inner` is the lane's chunk of the warp's first pixel, tap and channel.
template <typename Traits>
__device__ __forceinline__ void add_inner(
    BottleneckSums<Traits>& sums, const BottleneckWarp<Traits>& w, int rows, uint32_t inner,
    const unsigned char* weights) {
#pragma unroll
  for (int step = 0; step < kBottleneckDepth / 16; ++step) {
    sums.template add<kBottleneckDepth / 8>(w, rows, weights, step, [&](int i) {
      return inner + static_cast<uint32_t>(i * kBottleneckHalo * Traits::kPitch + step * 32);
    });
  }
}

// relu(affine(sums)) into the intermediate; pixels for which `inside` is false become zero, which is what the
// 3 x 3 shall find beyond the image.
template <typename Traits, typename Inside>
__device__ __forceinline__ void store_inner(
    const BottleneckSums<Traits>& sums, const BottleneckWarp<Traits>& w, int first_row, int rows,
    const float* scale, const float* shift, unsigned char* inner, const Inside& inside) {
  using T = typename Traits::T;
#pragma unroll
  for (int g = 0; g < BottleneckSums<Traits>::kGroups; ++g) {
    const int channel = w.half * (Traits::kMiddle / 2) + g * 32 + w.lane % 4 * 8;
    const Values<T> s = coefficients<T, true>(scale, channel, 8, 1.0f);
    const Values<T> t = coefficients<T, true>(shift, channel, 8, 0.0f);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i >= rows) break;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = first_row + i, column = w.lane / 4 + 8 * half;
        Values<T> v = sums.values(i, half, g);
#pragma unroll
        for (int e = 0; e < 8; ++e) v[e] = affine(v[e], s[e], t[e]);
        const int at = (row * kBottleneckHalo + column) * Traits::kPitch + channel * 2;
        *reinterpret_cast<uint4*>(inner + at) = keep_or_zero(rounded_relu<T>(v), inside(row, column));
      }
    }
  }
}

// relu(affine(sums) + skip) to memory; `skip` is x, or `skip_sums` and their affine.
template <typename Traits>
__device__ __forceinline__ void store_out(
    const BottleneckInferParams& p, const BottleneckPlace& place, const BottleneckWarp<Traits>& w,
    int first_output, const BottleneckSums<Traits>& sums, const BottleneckSums<Traits>* skip_sums) {
  using T = typename Traits::T;
  const int first_row = w.first_row(kBottleneckTile), rows = w.count(kBottleneckTile);
#pragma unroll
  for (int g = 0; g < BottleneckSums<Traits>::kGroups; ++g) {
    const int channel = first_output + w.half * (Traits::kMiddle / 2) + g * 32 + w.lane % 4 * 8;
    const Values<T> s = coefficients<T, true>(p.s3, channel, 8, 1.0f);
    const Values<T> t = coefficients<T, true>(p.t3, channel, 8, 0.0f);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i >= rows) break;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int column = w.lane / 4 + 8 * half;
        const int h = place.row + first_row + i, c = place.column + column;
        if (column >= kBottleneckTile || h >= p.height || c >= p.width) continue;
        const int64_t at =
            ((static_cast<int64_t>(place.image) * p.height + h) * p.width + c) * p.outputs + channel;
        Values<T> skip;
        if constexpr (Traits::kDownsample) {
          const Values<T> sd = coefficients<T, true>(p.sd, channel, 8, 1.0f);
          const Values<T> td = coefficients<T, true>(p.td, channel, 8, 0.0f);
          skip = skip_sums->values(i, half, g);
#pragma unroll
          for (int e = 0; e < 8; ++e) skip[e] = affine(skip[e], sd[e], td[e]);
        } else {
          skip = from_chunk<T>(__ldg(reinterpret_cast<const uint4*>(static_cast<const T*>(p.x) + at)));
        }
        Values<T> v = sums.values(i, half, g);
#pragma unroll
        for (int e = 0; e < 8; ++e) v[e] = affine(v[e], s[e], t[e]) + skip[e];
        *reinterpret_cast<uint4*>(static_cast<T*>(p.out) + at) = rounded_relu<T>(v);
      }
    }
  }
}

// Blocks walk over the tiles, so that resident weights are loaded once and the next tile's x comes early.
template <typename Traits>
__global__ void __launch_bounds__(kBottleneckThreads, 1)
    bottleneck_infer_kernel(const __grid_constant__ BottleneckInferParams p) {
  extern __shared__ __align__(128) unsigned char shared[];
  constexpr int kPitch = Traits::kPitch, kSlices = Traits::kSlices;
  constexpr bool kResident = Traits::kResident;
  constexpr int kInnerPixels = kBottleneckHalo * kBottleneckHalo;
  unsigned char* const inner = shared + Traits::kStages * Traits::kStageBytes;
  const BottleneckWeights<Traits> weights(p, inner + Traits::kInnerBytes);
  for (int i = threadIdx.x; i < 2 * kPitch / 16; i += kBottleneckThreads) {
    reinterpret_cast<uint4*>(inner + kInnerPixels * kPitch)[i] = {0, 0, 0, 0};
  }
  BottleneckFeed<Traits> feed(p, shared);

  const int x_steps = p.channels / kBottleneckXDepth, groups = p.outputs / Traits::kMiddle;
  const BottleneckWarp<Traits> w;
  const int halo_row = w.first_row(kBottleneckHalo);
  const int first_row = w.first_row(kBottleneckTile), rows = w.count(kBottleneckTile);
  const uint32_t lane_inner = shared_address(inner) +
                              static_cast<uint32_t>((first_row * kBottleneckHalo + w.lane % 16) * kPitch) +
                              w.lane / 16 * 16;

  for (int tile = blockIdx.x; tile < p.tiles; tile += gridDim.x) {
    const BottleneckPlace place(p, tile);
    BottleneckSums<Traits> sums;
    sums.clear();
    for (int step = 0; step < x_steps; ++step) {
      const unsigned char* const stage = feed.next();
      const unsigned char* const w1 =
          kResident ? weights.w1 + step * Traits::kXSliceBytes : stage + Traits::kXBytes;
      add_x(sums, w, halo_row, 4, stage, w1);
    }
    store_inner(sums, w, halo_row, 4, p.s1, p.t1, inner, [&](int row, int column) {
      return static_cast<uint32_t>(place.row + row - 1) < static_cast<uint32_t>(p.height) &&
             static_cast<uint32_t>(place.column + column - 1) < static_cast<uint32_t>(p.width);
    });
    if constexpr (kResident) __syncthreads();  // else the feed's

    sums.clear();
    for (int tap = 0; tap < 9; ++tap) {
#pragma unroll
      for (int slice = 0; slice < kSlices; ++slice) {
        const unsigned char* const w2 =
            kResident ? weights.w2 + (tap * kSlices + slice) * Traits::kSliceBytes : feed.next();
        const int offset = (tap / 3 * kBottleneckHalo + tap % 3) * kPitch + slice * 2 * kBottleneckDepth;
        add_inner(sums, w, rows, lane_inner + static_cast<uint32_t>(offset), w2);
      }
    }
    __syncthreads();  // the second intermediate takes the place of the first
    store_inner(sums, w, first_row, rows, p.s2, p.t2, inner, [](int, int) { return true; });
    if constexpr (kResident) __syncthreads();

    for (int group = 0; group < groups; ++group) {
      sums.clear();
#pragma unroll
      for (int slice = 0; slice < kSlices; ++slice) {
        const unsigned char* const w3 =
            kResident ? weights.w3 + (group * kSlices + slice) * Traits::kSliceBytes : feed.next();
        add_inner(sums, w, rows, lane_inner + slice * 2 * kBottleneckDepth, w3);
      }
      if constexpr (Traits::kDownsample) {
        BottleneckSums<Traits> skip;
        skip.clear();
        for (int step = 0; step < x_steps; ++step) {
          const unsigned char* const stage = feed.next();
          const unsigned char* const wd = kResident
                                              ? weights.wd + (group * x_steps + step) * Traits::kXSliceBytes
                                              : stage + Traits::kXBytes;
          add_x(skip, w, first_row, rows, stage, wd);
        }
        store_out(p, place, w, group * Traits::kMiddle, sums, &skip);
      } else {
        store_out<Traits>(p, place, w, group * Traits::kMiddle, sums, nullptr);
      }
    }
  }
  cp_async_wait<0>();
}

}  // namespace fusedres::cuda
