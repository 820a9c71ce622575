#pragma once

#include <climits>

#include "cuda/affine_act_maxpool.h"
#include "cuda/common/rows.h"
#include "cuda/common/vec.cuh"

namespace fusedres::cuda {

// A thread takes this many pooled pixels of a row one after the other, and keeps the column that two windows
// share: it reads 6 values a window, and one column more at the start, instead of 9.
constexpr int kPoolSegment = 8;

__host__ __device__ inline int64_t pool_segments(int64_t pooled_width) {
  return (pooled_width + kPoolSegment - 1) / kPoolSegment;
}

// The segment that is item `at` of all images' pooled rows.
struct PoolSegment {
  int64_t image, p, q, q_end;

  __device__ PoolSegment(const PoolShape& shape, int64_t at) {
    const int64_t segments = pool_segments(shape.pooled_width), row = at / segments;
    image = row / shape.pooled_height;
    p = row % shape.pooled_height;
    q = (at % segments) * kPoolSegment;
    q_end = min(q + kPoolSegment, shape.pooled_width);
  }
};

// relu(y * s + t) of a window's three rows in one column, as it would be written out; outside the map what no
// maximum is.
template <typename T, int kN>
struct PoolColumn {
  Floats<kN> row[3];

  __device__ __forceinline__ void load(
      const AffineActMaxpoolParams<T>& k, int64_t image, int64_t p, int64_t w, int64_t channel,
      const Floats<kN>& scale, const Floats<kN>& shift) {
#pragma unroll
    for (int r = 0; r < 3; ++r) {
      const int64_t h = 2 * p - 1 + r;
      row[r] = splat<kN>(-INFINITY);
      if (h < 0 || h >= k.shape.height || w < 0 || w >= k.shape.width) continue;
      const T* y = k.y + ((image * k.shape.height + h) * k.shape.width + w) * k.shape.channels + channel;
      const Floats<kN> x = cuda::load<T, kN>(y);
#pragma unroll
      for (int i = 0; i < kN; ++i)
        row[r][i] = rounded_to<T>(relu(affine(x[i], scale[i], shift[i])) + 0.0f);  // no -0
    }
  }
};

// A window's maximum and its place.
struct Pooled {
  float most;
  int place;
};

// The first maximum in row-major order, NaN above everything, as torch. values[r][s] is at place 3 * r + s.
__device__ __forceinline__ Pooled first_maximum(const float (&values)[3][3]) {
  Pooled best{-INFINITY, 0};
#pragma unroll
  for (int place = 0; place < 9; ++place) {
    const float value = values[place / 3][place % 3];
    const bool better = value > best.most || isnan(value);
    best.most = better ? value : best.most;
    best.place = better ? place : best.place;
  }
  return best;
}

// The same where the low four bits of every value are 0, as those of a 16-bit type are: the bits of values
// that are not negative are ordered like the values (and those of -infinity are below), so one integer
// maximum finds value and place, in two instructions a value instead of four. Places count down: the first of
// equals is the largest.
__device__ __forceinline__ Pooled first_maximum_of_short(const float (&values)[3][3]) {
  constexpr int kInfinity = 0x7f800000, kLast = 8;
  int best = INT_MIN;
#pragma unroll
  for (int place = 0; place < 9; ++place) {
    const int key = __float_as_int(values[place / 3][place % 3]) | (kLast - place);
    best = max(best, key);
  }
  if (best > (kInfinity | kLast)) return first_maximum(values);  // of NaN the last wins
  return {__int_as_float(best & ~15), kLast - (best & 15)};
}

template <typename T, int kN>
__device__ __forceinline__ void pool(
    const PoolColumn<T, kN>& left, const PoolColumn<T, kN>& middle, const PoolColumn<T, kN>& right,
    Floats<kN>& most, Pack<uint8_t, kN>& index) {
#pragma unroll
  for (int i = 0; i < kN; ++i) {
    float values[3][3];
#pragma unroll
    for (int r = 0; r < 3; ++r) {
      values[r][0] = left.row[r][i];
      values[r][1] = middle.row[r][i];
      values[r][2] = right.row[r][i];
    }
    const Pooled best = sizeof(T) == 2 ? first_maximum_of_short(values) : first_maximum(values);
    most[i] = best.most;
    index.v[i] = static_cast<uint8_t>(best.place);
  }
}

template <typename T, int kN>
__global__ void __launch_bounds__(kRowThreads) affine_act_maxpool_kernel(const AffineActMaxpoolParams<T> k) {
  const PoolShape& shape = k.shape;
  const RowWalk walk(shape.channels, kN);
  Floats<kN> v[2];
  load_vectors<kN>(walk, shape.channels, {k.s, k.t}, v);
  if (!walk.active) return;
  const int64_t items = shape.images * shape.pooled_height * pool_segments(shape.pooled_width);
  for (int64_t item = walk.row; item < items; item += walk.step) {
    const PoolSegment at(shape, item);
    PoolColumn<T, kN> left, middle, right;
    left.load(k, at.image, at.p, 2 * at.q - 1, walk.channel, v[0], v[1]);
    for (int64_t q = at.q; q < at.q_end; ++q) {
      middle.load(k, at.image, at.p, 2 * q, walk.channel, v[0], v[1]);
      right.load(k, at.image, at.p, 2 * q + 1, walk.channel, v[0], v[1]);
      Floats<kN> best;
      Pack<uint8_t, kN> index;
      pool(left, middle, right, best, index);
      const int64_t to =
          ((at.image * shape.pooled_height + at.p) * shape.pooled_width + q) * shape.channels + walk.channel;
      store(k.out + to, best);
      store_pack(k.index + to, index);
      left = right;
    }
  }
}

}  // namespace fusedres::cuda
