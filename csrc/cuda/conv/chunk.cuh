// Sixteen bytes of elements: what a thread moves at once, and their fp32 values.
#pragma once

#include <cstdint>
#include <type_traits>

#include "common/element.h"
#include "cuda/common/sm80.h"
#include "cuda/common/vec.cuh"

namespace fusedres::cuda {

template <typename T>
constexpr int kPerChunk = kVec<T>;

template <typename T>
using Values = Floats<kPerChunk<T>>;

__device__ __forceinline__ float low_half(uint32_t word, BFloat16) { return __uint_as_float(word << 16); }
__device__ __forceinline__ float high_half(uint32_t word, BFloat16) {
  return __uint_as_float(word & 0xffff0000u);
}
__device__ __forceinline__ float low_half(uint32_t word, Half) {
  return to_float(Half{static_cast<uint16_t>(word)});
}
__device__ __forceinline__ float high_half(uint32_t word, Half) {
  return to_float(Half{static_cast<uint16_t>(word >> 16)});
}

// Word by word: as an array of 16-bit values a chunk costs an instruction more for each.
template <typename T>
__device__ __forceinline__ Values<T> from_chunk(uint4 chunk) {
  const uint32_t words[4] = {chunk.x, chunk.y, chunk.z, chunk.w};
  Values<T> values;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (sizeof(T) == 4) {
      values[i] = __uint_as_float(words[i]);
    } else {
      values[2 * i] = low_half(words[i], T{});
      values[2 * i + 1] = high_half(words[i], T{});
    }
  }
  return values;
}

// To nearest, ties to even.
template <typename T>
__device__ __forceinline__ uint4 to_chunk(const Values<T>& values) {
  uint32_t words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (sizeof(T) == 4) {
      words[i] = __float_as_uint(values[i]);
    } else {
      words[i] = rounded_pair<T>(values[2 * i], values[2 * i + 1]);
    }
  }
  return {words[0], words[1], words[2], words[3]};
}

// ReLU of every value; NaN passes. After rounding it is one instruction for two values, and the result is the
// same.
template <typename T>
__device__ __forceinline__ uint4 relu_chunk(uint4 chunk) {
  uint32_t words[4] = {chunk.x, chunk.y, chunk.z, chunk.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (sizeof(T) == 4) {
      words[i] = __float_as_uint(relu(__uint_as_float(words[i])));
    } else if constexpr (std::is_same_v<T, Half>) {
      FUSEDRES_SM80(asm("max.NaN.f16x2 %0, %0, %1;" : "+r"(words[i]) : "r"(0)));
    } else {
      FUSEDRES_SM80(asm("max.NaN.bf16x2 %0, %0, %1;" : "+r"(words[i]) : "r"(0)));
    }
  }
  return {words[0], words[1], words[2], words[3]};
}

// Elements one by one, for channel counts that leave chunks unaligned; before `first` and from `end` on they
// are zero.
template <typename T>
__device__ __forceinline__ uint4 gather_chunk(const T* from, int first, int end) {
  uint4 chunk{0, 0, 0, 0};
  T* elements = reinterpret_cast<T*>(&chunk);
#pragma unroll
  for (int i = 0; i < kPerChunk<T>; ++i) {
    if (i >= first && i < end) elements[i] = from[i];
  }
  return chunk;
}

template <typename T>
__device__ __forceinline__ void scatter_chunk(T* to, uint4 chunk, int count) {
  const T* elements = reinterpret_cast<const T*>(&chunk);
#pragma unroll
  for (int i = 0; i < kPerChunk<T>; ++i) {
    if (i < count) to[i] = elements[i];
  }
}

// A chunk of a row of the result's shape; `aligned` is the same for the whole launch.
template <typename T>
__device__ __forceinline__ uint4 load_chunk(const void* from, int64_t at, int count, bool aligned) {
  const T* source = static_cast<const T*>(from) + at;
  return aligned ? __ldg(reinterpret_cast<const uint4*>(source)) : gather_chunk(source, 0, count);
}

template <typename T>
__device__ __forceinline__ void store_chunk(void* to, int64_t at, uint4 chunk, int count, bool aligned) {
  T* destination = static_cast<T*>(to) + at;
  if (aligned) {
    *reinterpret_cast<uint4*>(destination) = chunk;
  } else {
    scatter_chunk(destination, chunk, count);
  }
}

// Per-channel coefficients of a chunk; where absent, or beyond `count`, `otherwise`. With `kWhole` every
// chunk lies inside, on 16-byte addresses.
template <typename T, bool kWhole>
__device__ __forceinline__ Values<T> coefficients(const float* of, int channel, int count, float otherwise) {
  if constexpr (kWhole) {
    return of == nullptr ? splat<kPerChunk<T>>(otherwise) : load_vector<kPerChunk<T>>(of + channel);
  } else {
    Values<T> values;
#pragma unroll
    for (int i = 0; i < kPerChunk<T>; ++i) {
      values[i] = of != nullptr && i < count ? __ldg(of + channel + i) : otherwise;
    }
    return values;
  }
}

}  // namespace fusedres::cuda
