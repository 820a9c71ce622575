// The weight gradient as an implicit GEMM: outputs x (taps, channels), summed over a part of the pixels.
#pragma once

#include "cuda/conv_wgrad_rows.cuh"

namespace fusedres::cuda {

// kM outputs x kN columns a block. kFormed: which operands change between their arrival in shared memory and
// their use. kSamePixels: output pixel m reads input pixel m.
template <typename T_, int kM_, int kN_, WgradFormed kFormed_, bool kSamePixels_>
struct WgradTraits {
  using T = T_;
  static constexpr int kM = kM_, kN = kN_;
  static constexpr bool kFormed = kFormed_ != WgradFormed::kNone, kActivated = kFormed_ == WgradFormed::kBoth;
  static constexpr bool kSamePixels = kSamePixels_;
  // Forming adds y's tile to a stage, and with it fewer stages fit twice into 163 KB.
  static constexpr int kStages = kFormed ? 3 : 4;

  using LeftTile = PixelTile<T, kWgradPixels, kM>;
  using RightTile = PixelTile<T, kWgradPixels, kN>;
  using Left = PixelFragments<T, kWgradPixels, kM, kM / 2, true>;
  using Right = PixelFragments<T, kWgradPixels, kN, kN / 2, false>;
  static constexpr int kSteps = kWgradPixels / Left::kDepth;

  static constexpr int kStageBytes = LeftTile::kBytes * (kFormed ? 2 : 1) + RightTile::kBytes;
  static constexpr int kVectorValues = (kFormed ? 3 * kM : 0) + (kActivated ? 2 * kN : 0);
  static constexpr int kSharedBytes = kStages * kStageBytes + kVectorValues * static_cast<int>(sizeof(float));
};

// What a block sums: a tile of the result over a part of the pixels. The grid is (tiles of outputs x tiles of
// columns, groups, parts).
struct WgradBlock {
  int first_output, first_column, group;
  int begin, end, stages;  // pixels

  __device__ WgradBlock(const ConvWgradParams& p, int outputs, int columns)
      : first_output(static_cast<int>(blockIdx.x) % p.tiles_k * outputs),
        first_column(static_cast<int>(blockIdx.x) / p.tiles_k * columns),
        group(blockIdx.y),
        begin(static_cast<int>(blockIdx.z) * p.part_pixels),
        end(min(begin + p.part_pixels, p.pixels)),
        stages((end - begin + kWgradPixels - 1) / kWgradPixels) {}
};

// p, q, r of the tile's outputs, where absent such that they change nothing; then in_s, in_t of its columns.
template <typename Traits>
__device__ void load_wgrad_vectors(const ConvWgradParams& p, const WgradBlock& block, float* vectors) {
  using T = typename Traits::T;
  for (int i = threadIdx.x; i < Traits::kM; i += kWgradThreads) {
    const int output = block.first_output + i;
    const int64_t channel = block.group * p.group_outputs + output;
    const bool inside = output < p.group_outputs;
    using Vector = ChunkVector<T, Traits::kM>;
    Vector::put(vectors, i, inside && p.p != nullptr ? p.p[channel] : 1.0f);
    Vector::put(vectors + Traits::kM, i, inside && p.q != nullptr ? p.q[channel] : 0.0f);
    Vector::put(vectors + 2 * Traits::kM, i, inside && p.r != nullptr ? p.r[channel] : 0.0f);
  }
  float* const columns = vectors + 3 * Traits::kM;
  for (int i = threadIdx.x; i < Traits::kN && Traits::kActivated; i += kWgradThreads) {
    const int column = block.first_column + i;
    const int64_t channel = block.group * p.group_channels + column % p.group_channels;
    const bool inside = column < p.columns;
    using Vector = ChunkVector<T, Traits::kN>;
    Vector::put(columns, i, inside ? p.in_s[channel] : 0.0f);
    Vector::put(columns + Traits::kN, i, inside ? p.in_t[channel] : 0.0f);
  }
}

// Which quarter of the block's tile a warp sums, and where its lanes find their fragments.
template <typename Traits>
struct WgradWarp {
  using Left = typename Traits::Left;
  using Right = typename Traits::Right;
  int lane = threadIdx.x % kWarpSize;
  int output = threadIdx.x / kWarpSize % 2 * (Traits::kM / 2);
  int column = threadIdx.x / kWarpSize / 2 * (Traits::kN / 2);
  uint32_t left_offset[Left::kLoads], right_offset[Right::kLoads];

  __device__ WgradWarp() {
    Left::offsets(output, lane, left_offset);
    Right::offsets(column, lane, right_offset);
  }
};

template <typename Traits>
__device__ void store_part(
    const ConvWgradParams& p, const WgradBlock& block, const WgradWarp<Traits>& warp,
    const PixelProduct<typename Traits::Left, typename Traits::Right>& product) {
  const int64_t first_row = static_cast<int64_t>(blockIdx.z) * p.outputs + block.group * p.group_outputs;
  float* const part = p.parts + first_row * p.columns;
  product.each(warp.lane, [&](int row, int column, const auto& values) {
    constexpr int kRun = sizeof(values) / sizeof(float);
    const int output = block.first_output + warp.output + row;
    const int first = block.first_column + warp.column + column;
    if (output >= p.group_outputs) return;
    float* const to = part + static_cast<int64_t>(output) * p.columns + first;
    if (p.columns % kRun != 0) {
#pragma unroll
      for (int i = 0; i < kRun; ++i) {
        if (first + i < p.columns) to[i] = values[i];
      }
    } else if (first < p.columns) {
      if constexpr (kRun == 2) {
        *reinterpret_cast<float2*>(to) = {values[0], values[1]};
      } else {
        *reinterpret_cast<float4*>(to) = {values[0], values[1], values[2], values[3]};
      }
    }
  });
}

template <typename Traits>
__global__ void __launch_bounds__(kWgradThreads, Traits::kM* Traits::kN > 64 * 64 ? 2 : 4)
    conv_wgrad_kernel(const __grid_constant__ ConvWgradParams p) {
  using T = typename Traits::T;
  using Left = typename Traits::Left;
  using Right = typename Traits::Right;
  constexpr int kStages = Traits::kStages, kSteps = Traits::kSteps;
  extern __shared__ __align__(128) unsigned char shared[];
  constexpr int kRight = Traits::LeftTile::kBytes * (Traits::kFormed ? 2 : 1);  // of a stage
  float* const vectors = reinterpret_cast<float*>(shared + kStages * Traits::kStageBytes);

  const WgradBlock block(p, Traits::kM, Traits::kN);
  GradientRows<Traits> gradient(p, block.first_output, block.group, block.begin);
  InputRows<Traits> input(p, block.first_column, block.group, block.begin);

  constexpr int kGradientRows = GradientRows<Traits>::Chunks::kRows;
  constexpr int kInputRows = InputRows<Traits>::Chunks::kRows;
  static_assert(kGradientRows % kSteps == 0 && kInputRows % kSteps == 0);
  static_assert(kInputRows * (kStages - 1) <= 32, "a bit each");
  uint32_t not_padding = 0;  // kInputRows bits a stage under way, the oldest lowest

  // A step's share of a stage's copies, and of its forming. A stage past the last is all zeros.
  auto load = [&](int step, int stage, int slot) {
    unsigned char* const tile = shared + slot * Traits::kStageBytes;
    const int first = block.begin + stage * kWgradPixels;
#pragma unroll
    for (int i = step * kGradientRows / kSteps; i < (step + 1) * kGradientRows / kSteps; ++i) {
      gradient.load(p, i, first, block.end, tile);
    }
#pragma unroll
    for (int i = step * kInputRows / kSteps; i < (step + 1) * kInputRows / kSteps; ++i) {
      const bool valid = input.load(p, i, first, block.end, tile + kRight);
      if (Traits::kActivated) not_padding |= static_cast<uint32_t>(valid) << (i + (kStages - 2) * kInputRows);
    }
  };
  auto form = [&](int step, int stage, int slot) {
    unsigned char* const tile = shared + slot * Traits::kStageBytes;
    gradient.form(
        step * kGradientRows / kSteps, (step + 1) * kGradientRows / kSteps,
        block.begin + stage * kWgradPixels, block.end, tile, vectors);
    if constexpr (Traits::kActivated) {
      input.form(
          step * kInputRows / kSteps, (step + 1) * kInputRows / kSteps, not_padding, tile + kRight,
          vectors + 3 * Traits::kM);
    }
  };

#pragma unroll
  for (int s = 0; s < kStages - 1; ++s) {
    if (s > 0) not_padding >>= kInputRows;
#pragma unroll
    for (int step = 0; step < kSteps; ++step) load(step, s, s);
    cp_async_commit();
  }
  if constexpr (Traits::kFormed) {
    load_wgrad_vectors<Traits>(p, block, vectors);
    cp_async_wait<kStages - 2>();
    __syncthreads();  // the vectors
#pragma unroll
    for (int step = 0; step < kSteps; ++step) form(step, 0, 0);
  }

  const WgradWarp<Traits> warp;
  PixelProduct<Left, Right> product;

  int slot = 0;
  for (int stage = 0; stage < block.stages; ++stage) {
    // Stage `stage` is summed, the next one formed, and a later one loaded into the slot of the one before.
    const int next_slot = slot + 1 == kStages ? 0 : slot + 1;
    const int free_slot = slot == 0 ? kStages - 1 : slot - 1;
    cp_async_wait<Traits::kFormed ? kStages - 3 : kStages - 2>();
    __syncthreads();
    not_padding >>= kInputRows;
    const unsigned char* const tile = shared + slot * Traits::kStageBytes;
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      Left left;
      Right right;
      left.load(tile, step, warp.left_offset);
      right.load(tile + kRight, step, warp.right_offset);
      load(step, stage + kStages - 1, free_slot);
      if constexpr (Traits::kFormed) form(step, stage + 1, next_slot);
      product.template add<T>(left, right);
    }
    cp_async_commit();
    slot = next_slot;
  }
  cp_async_wait<0>();
  store_part(p, block, warp, product);
}

}  // namespace fusedres::cuda
