// Sums and moments over the rows of a block, merged through shared memory in a fixed order: no atomics, so
// the same input gives the same bits.
#pragma once

#include "common/moments.h"
#include "cuda/common/rows.h"
#include "cuda/common/vec.cuh"

namespace fusedres::cuda {

// Folds `value` over threadIdx.y, by halves: row y takes in row y + half. What row 0 holds in the end is the
// result for its channels. merge(mine, theirs) is called in the same order on every run.
//   scratch: shared, one Value a thread. Its size in words should be odd: neighbours then use other banks.
template <typename Value, typename Merge>
__device__ void fold_rows(Value& value, Value* scratch, Merge merge) {
  const int at = threadIdx.y * blockDim.x + threadIdx.x;
  for (int rows = blockDim.y; rows > 1;) {
    const int half = (rows + 1) / 2;
    __syncthreads();
    if (threadIdx.y >= half && threadIdx.y < rows) scratch[at] = value;
    __syncthreads();
    if (threadIdx.y + half < rows) merge(value, scratch[at + half * blockDim.x]);
    rows = half;
  }
}

// Count, mean and M2 of values of kN channels: the count is theirs in common.
template <int kN>
struct Moments {
  float count;
  Floats<kN> mean, m2;

  static __device__ Moments none() { return {0.0f, splat<kN>(0.0f), splat<kN>(0.0f)}; }

  __device__ void merge(const Moments& other) {
    if (other.count == 0.0f) return;
    const ChanMerge<float> chan(count, other.count);
#pragma unroll
    for (int i = 0; i < kN; ++i) chan(mean[i], m2[i], other.mean[i], other.m2[i]);
    count += other.count;
  }
};

// kN sums that keep what their additions round away (Knuth's two-sum), so that thousands of fp32 terms that
// cancel are summed about as exactly as in fp64. An addition costs seven: add the sums of a few rows, not
// values.
template <int kN>
struct ExactSums {
  Floats<kN> sum, rest;

  static __device__ ExactSums none() { return {splat<kN>(0.0f), splat<kN>(0.0f)}; }

  __device__ void add(const Floats<kN>& x) {
#pragma unroll
    for (int i = 0; i < kN; ++i) {
      const float total = __fadd_rn(sum[i], x[i]);
      const float added = __fsub_rn(total, sum[i]);
      rest[i] += __fadd_rn(__fsub_rn(sum[i], __fsub_rn(total, added)), __fsub_rn(x[i], added));
      sum[i] = total;
    }
  }
  __device__ void add(const ExactSums& other) {
    add(other.sum);
#pragma unroll
    for (int i = 0; i < kN; ++i) rest[i] += other.rest[i];
  }
  __device__ float operator[](int i) const { return sum[i] + rest[i]; }
};

// kKinds sums of kN channels, as a block folds and writes them: of dz; of dz * (y - mean), once or twice.
template <int kN, int kKinds>
struct BlockSums {
  static constexpr int kWords = kKinds * kN;
  float v[kWords + (kWords % 2 == 0 ? 1 : 0)];  // an odd number of words: see fold_rows

  __device__ void set(int kind, const ExactSums<kN>& sums) {
#pragma unroll
    for (int i = 0; i < kN; ++i) v[kind * kN + i] = sums[i];
  }

  // Into the block's first row of threads.
  __device__ void fold(BlockSums* scratch) {
    fold_rows(*this, scratch, [](BlockSums& mine, const BlockSums& theirs) {
#pragma unroll
      for (int i = 0; i < kWords; ++i) mine.v[i] += theirs.v[i];
    });
  }

  // The block's two rows of `sums`, (2 * blocks, channels): of dz, and of dz * x_hat by the sum of kind kDot;
  // zeros where there is no invstd.
  template <int kDot>
  __device__ void write(const RowWalk& walk, int64_t channels, const float* invstd, float* sums) const {
    float* const rows = sums + static_cast<int64_t>(blockIdx.x) * 2 * channels;
    store_vector(walk, channels, of(0), rows);
    Floats<kN> projected = splat<kN>(0.0f);
    if (invstd != nullptr) {
      Floats<kN> factor[1];
      load_vectors<kN>(walk, channels, {invstd}, factor);
#pragma unroll
      for (int i = 0; i < kN; ++i) projected[i] = of(kDot)[i] * factor[0][i];
    }
    store_vector(walk, channels, projected, rows + channels);
  }

 private:
  __device__ Floats<kN> of(int kind) const {
    Floats<kN> sums;
#pragma unroll
    for (int i = 0; i < kN; ++i) sums[i] = v[kind * kN + i];
    return sums;
  }
};

}  // namespace fusedres::cuda
