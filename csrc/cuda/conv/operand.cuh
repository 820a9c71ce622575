// Operands, formed chunk by chunk where they lie in shared memory.
#pragma once

#include "cuda/conv/chunk.cuh"

namespace fusedres::cuda {

__device__ __forceinline__ uint32_t pack_halves_relu(float low, float high, BFloat16) {
  uint32_t word{};
  FUSEDRES_SM80(asm("cvt.rn.relu.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low)));
  return word;
}
__device__ __forceinline__ uint32_t pack_halves_relu(float low, float high, Half) {
  uint32_t word{};
  FUSEDRES_SM80(asm("cvt.rn.relu.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low)));
  return word;
}

// ReLU and rounding; for 16-bit values they are one instruction. NaN passes.
template <typename T>
__device__ __forceinline__ uint4 rounded_relu(const Values<T>& values) {
  uint32_t words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (sizeof(T) == 4) {
      words[i] = __float_as_uint(relu(values[i]));
    } else {
      words[i] = pack_halves_relu(values[2 * i], values[2 * i + 1], T{});
    }
  }
  return {words[0], words[1], words[2], words[3]};
}

// relu(x * scale + shift), rounded as if it had been written.
template <typename T>
__device__ __forceinline__ uint4 activated(uint4 chunk, const Values<T>& scale, const Values<T>& shift) {
  Values<T> values = from_chunk<T>(chunk);
#pragma unroll
  for (int i = 0; i < kPerChunk<T>; ++i) values[i] = affine(values[i], scale[i], shift[i]);
  return rounded_relu<T>(values);
}

// p * dz + q * y + r: BatchNorm's input gradient.
template <typename T>
__device__ __forceinline__ uint4
output_gradient(uint4 dz, uint4 y, const Values<T>& p, const Values<T>& q, const Values<T>& r) {
  Values<T> values = from_chunk<T>(dz);
  const Values<T> saved = from_chunk<T>(y);
#pragma unroll
  for (int i = 0; i < kPerChunk<T>; ++i) values[i] = fmaf(p[i], values[i], fmaf(q[i], saved[i], r[i]));
  return to_chunk<T>(values);
}

// `chunk` where `keep`, else zeros, without a branch.
__device__ __forceinline__ uint4 keep_or_zero(uint4 chunk, bool keep) {
  return {keep ? chunk.x : 0u, keep ? chunk.y : 0u, keep ? chunk.z : 0u, keep ? chunk.w : 0u};
}

// An fp32 vector in shared memory for a tile of kChannels, such that threads that hold neighbouring chunks
// read neighbouring 16 bytes: first every chunk's first four values, then every chunk's last four.
template <typename T, int kChannels>
struct ChunkVector {
  static constexpr int kChunks = kChannels / kPerChunk<T>;

  __device__ static void put(float* vector, int channel, float value) {
    const int chunk = channel / kPerChunk<T>, within = channel % kPerChunk<T>;
    vector[(within / 4 * kChunks + chunk) * 4 + within % 4] = value;
  }
  __device__ static Values<T> get(const float* vector, int chunk) {
    Values<T> values;
#pragma unroll
    for (int i = 0; i < kPerChunk<T>; i += 4) {
      const float4 four = *reinterpret_cast<const float4*>(vector + (i / 4 * kChunks + chunk) * 4);
      values[i] = four.x, values[i + 1] = four.y, values[i + 2] = four.z, values[i + 3] = four.w;
    }
    return values;
  }
};

}  // namespace fusedres::cuda
