// What happens to a staged tile on its way to memory: functors over a chunk of a row, and what they leave
// behind.
//
// A thread owns one chunk of channels in every kRowsAtOnce-th row. `row` turns the accumulator's values into
// those that are stored; `finish` runs when every row has been stored.
#pragma once

#include "common/moments.h"
#include "cuda/conv/result.cuh"
#include "cuda/conv/staging.cuh"

namespace fusedres::cuda {

// How the threads of a block share a tile of the result.
template <typename T, typename Tile>
struct Sharing {
  static constexpr int kChunksN = Tile::kN / kPerChunk<T>;
  static constexpr int kRowsAtOnce = Tile::kThreads / kChunksN;
  static_assert(Tile::kThreads % kChunksN == 0 && Tile::kM % kRowsAtOnce == 0);

  int chunk = threadIdx.x % kChunksN;
  int row = threadIdx.x / kChunksN;
  int rows;     // of the tile, inside the result
  int channel;  // the chunk's first one, in all of the result
  int count;    // of the chunk's channels that exist; may be negative

  __device__ Sharing(const ConvParams& p, const TilePlace& place)
      : rows(min(Tile::kM, p.pixel_class[place.pixel_class].pixels - place.first_pixel)),
        channel(place.group * p.columns + place.first_column + chunk * kPerChunk<T>),
        count(min(kPerChunk<T>, p.columns - place.first_column - chunk * kPerChunk<T>)) {}

  // Per-channel parameters of the chunk; `otherwise` where there are none.
  __device__ Values<T> vector(const ConvParams& p, const float* of, float otherwise) const {
    if (p.aligned_out && count > 0) return coefficients<T, true>(of, channel, count, otherwise);
    return coefficients<T, false>(of, channel, count, otherwise);
  }

  // How many of the rows that start at `first` one thread sees.
  __device__ int rows_of(int first) const { return first < rows ? (rows - 1 - first) / kRowsAtOnce + 1 : 0; }
};

// Adds what the threads of a chunk's rows hold, row by row in order, and hands each channel's total to
// `store`.
template <typename T, typename Tile, typename Store>
__device__ __forceinline__ void add_rows(
    float* shared, const Sharing<T, Tile>& mine, const Values<T>& values, Store&& store) {
#pragma unroll
  for (int i = 0; i < kPerChunk<T>; ++i)
    shared[mine.row * Tile::kN + mine.chunk * kPerChunk<T> + i] = values[i];
  __syncthreads();
  for (int column = threadIdx.x; column < Tile::kN; column += Tile::kThreads) {
    float total = 0.0f;
    for (int row = 0; row < Sharing<T, Tile>::kRowsAtOnce; ++row) total += shared[row * Tile::kN + column];
    store(column, total);
  }
  __syncthreads();
}

// relu(value * scale + shift + add)
template <typename T, typename Tile>
struct AffineAct {
  static constexpr bool kForward = true;

  const ConvParams& p;
  const Sharing<T, Tile>& mine;
  Values<T> scale, shift;

  __device__ AffineAct(const ConvParams& p, const Sharing<T, Tile>& mine)
      : p(p),
        mine(mine),
        scale(mine.vector(p, p.affine.scale, 1.0f)),
        shift(mine.vector(p, p.affine.shift, 0.0f)) {}

  __device__ uint4 row(Values<T> values, int64_t at) {
#pragma unroll
    for (int i = 0; i < kPerChunk<T>; ++i) values[i] = affine(values[i], scale[i], shift[i]);
    if (p.add != nullptr) {
      const Values<T> more = from_chunk<T>(load_chunk<T>(p.add, at, mine.count, p.aligned_out));
#pragma unroll
      for (int i = 0; i < kPerChunk<T>; ++i) values[i] += more[i];
    }
    const uint4 stored = to_chunk<T>(values);
    return p.affine.relu ? relu_chunk<T>(stored) : stored;
  }

  __device__ void finish(const TilePlace&, float*) {}
};

// The result as it is; its count, mean and sum of squared deviations in the tile, by channel.
template <typename T, typename Tile>
struct Moments {
  static constexpr bool kForward = true;

  const ConvParams& p;
  const Sharing<T, Tile>& mine;
  Values<T> sum{};

  __device__ Moments(const ConvParams& p, const Sharing<T, Tile>& mine) : p(p), mine(mine) {}

  __device__ uint4 row(const Values<T>& values, int64_t) {
    const uint4 stored = to_chunk<T>(values);
    const Values<T> rounded = from_chunk<T>(stored);
#pragma unroll
    for (int i = 0; i < kPerChunk<T>; ++i) sum[i] += rounded[i];
    return stored;
  }

  // Each thread takes the moments of its own rows about its own mean; they are merged row by row.
  __device__ void finish(const TilePlace& place, float* staged) {
    constexpr int kRows = Sharing<T, Tile>::kRowsAtOnce;
    const float weight = 1.0f / static_cast<float>(max(1, mine.rows_of(mine.row)));
    Values<T> mean, m2{};
#pragma unroll
    for (int i = 0; i < kPerChunk<T>; ++i) mean[i] = sum[i] * weight;
    for (int row = mine.row; row < mine.rows; row += kRows) {
      const Values<T> rounded =
          from_chunk<T>(to_chunk<T>(Staging<Tile>::template read<T>(staged, row, mine.chunk)));
#pragma unroll
      for (int i = 0; i < kPerChunk<T>; ++i) m2[i] += (rounded[i] - mean[i]) * (rounded[i] - mean[i]);
    }
    __syncthreads();  // the staged values have been read: their memory takes the moments
    float* const means = staged;
    float* const m2s = staged + kRows * Tile::kN;
#pragma unroll
    for (int i = 0; i < kPerChunk<T>; ++i) {
      means[mine.row * Tile::kN + mine.chunk * kPerChunk<T> + i] = mean[i];
      m2s[mine.row * Tile::kN + mine.chunk * kPerChunk<T> + i] = m2[i];
    }
    __syncthreads();
    for (int column = threadIdx.x; column < Tile::kN; column += Tile::kThreads)
      merge(place, means, m2s, column);
    if (threadIdx.x == 0 && place.group == 0 && place.first_column == 0) {
      p.moments.count[place.tile] = static_cast<float>(mine.rows);
    }
  }

 private:
  __device__ void merge(const TilePlace& place, const float* means, const float* m2s, int column) const {
    if (place.first_column + column >= p.columns) return;
    float mean = means[column], m2 = m2s[column];
    float count = static_cast<float>(mine.rows_of(0));
    for (int row = 1; row < min(mine.rows, Sharing<T, Tile>::kRowsAtOnce); ++row) {
      const float more = static_cast<float>(mine.rows_of(row));
      ChanMerge<float>(count, more)(mean, m2, means[row * Tile::kN + column], m2s[row * Tile::kN + column]);
      count += more;
    }
    const int64_t at = static_cast<int64_t>(place.tile) * p.out_channels + place.group * p.columns +
                       place.first_column + column;
    p.moments.mean[at] = mean;
    p.moments.m2[at] = m2;
  }
};

// A gradient, plus `add`; where there is a BatchNorm before it, masked by that one's ReLU, and summed.
template <typename T, typename Tile>
struct MaskedGradient {
  static constexpr bool kForward = false;

  const ConvParams& p;
  const Sharing<T, Tile>& mine;
  Values<T> scale, shift, mean, sum{}, projected{};

  __device__ MaskedGradient(const ConvParams& p, const Sharing<T, Tile>& mine)
      : p(p),
        mine(mine),
        scale(mine.vector(p, p.mask.scale, 1.0f)),
        shift(mine.vector(p, p.mask.shift, 0.0f)),
        mean(mine.vector(p, p.mask.mean, 0.0f)) {}

  __device__ uint4 row(Values<T> values, int64_t at) {
    if (p.add != nullptr) {
      const Values<T> more = from_chunk<T>(load_chunk<T>(p.add, at, mine.count, p.aligned_out));
#pragma unroll
      for (int i = 0; i < kPerChunk<T>; ++i) values[i] += more[i];
    }
    if (p.mask.y == nullptr) return to_chunk<T>(values);
    const Values<T> y = from_chunk<T>(load_chunk<T>(p.mask.y, at, mine.count, p.aligned_out));
    Values<T> activation;  // of the dtype it was stored in, which may have rounded it to zero
#pragma unroll
    for (int i = 0; i < kPerChunk<T>; ++i) activation[i] = affine(y[i], scale[i], shift[i]);
    activation = from_chunk<T>(to_chunk<T>(activation));
#pragma unroll
    for (int i = 0; i < kPerChunk<T>; ++i) values[i] = activation[i] > 0.0f ? values[i] : 0.0f;
    const uint4 stored = to_chunk<T>(values);
    const Values<T> dz = from_chunk<T>(stored);
#pragma unroll
    for (int i = 0; i < kPerChunk<T>; ++i) {
      sum[i] += dz[i];
      projected[i] += dz[i] * (y[i] - mean[i]);
    }
    return stored;
  }

  __device__ void finish(const TilePlace& place, float* staged) {
    if (p.mask.y == nullptr) return;
    __syncthreads();  // the staged values have been read: their memory takes the sums
    const int first = place.group * p.columns + place.first_column, inside = p.columns - place.first_column;
    float* const at = p.mask.sums + static_cast<int64_t>(place.tile) * 2 * p.out_channels + first;
    add_rows(staged, mine, sum, [&](int column, float total) {
      if (column < inside) at[column] = total;
    });
    add_rows(staged, mine, projected, [&](int column, float total) {
      if (column >= inside) return;
      at[p.out_channels + column] = p.mask.invstd == nullptr ? 0.0f : total * p.mask.invstd[first + column];
    });
  }
};

// The staged tile through the epilogue to memory. The caller has synchronised since the last write to it.
template <typename T, typename Tile, template <typename, typename> typename Epilogue>
__device__ __forceinline__ void store_tile(const ConvParams& p, const TilePlace& place, float* staged) {
  const Sharing<T, Tile> mine(p, place);
  const PixelClass& pixels = p.pixel_class[place.pixel_class];
  Epilogue<T, Tile> epilogue(p, mine);
  if (mine.count > 0) {
#pragma unroll 4
    for (int row = mine.row; row < mine.rows; row += Sharing<T, Tile>::kRowsAtOnce) {
      const int64_t at = result_offset(p, pixels, place.first_pixel + row) + mine.channel;
      const uint4 stored = epilogue.row(Staging<Tile>::template read<T>(staged, row, mine.chunk), at);
      store_chunk<T>(p.out, at, stored, mine.count, p.aligned_out);
    }
  }
  epilogue.finish(place, staged);
}

}  // namespace fusedres::cuda
