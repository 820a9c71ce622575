// 16-byte accesses to activations, as fp32 in registers.
#pragma once

#include <cstdint>
#include <type_traits>

#include "common/element.h"
#include "cuda/common/rows.h"

namespace fusedres::cuda {

// kN consecutive values; kN = 1 is the path for odd channels and odd addresses.
template <int kN>
struct Floats {
  float v[kN];

  __device__ float& operator[](int i) { return v[i]; }
  __device__ float operator[](int i) const { return v[i]; }
};

template <typename T, int kN>
struct alignas(sizeof(T) * kN) Pack {
  T v[kN];
};

template <int kN>
__device__ __forceinline__ Floats<kN> splat(float x) {
  Floats<kN> out;
#pragma unroll
  for (int i = 0; i < kN; ++i) out[i] = x;
  return out;
}

// What no launch writes while it is read: activations and vectors that are inputs alone.
template <typename T, int kN>
__device__ __forceinline__ Pack<T, kN> load_pack(const T* p) {
  Pack<T, kN> pack;
  constexpr int kBytes = sizeof(T) * kN;
  if constexpr (kBytes == 16) {
    *reinterpret_cast<uint4*>(&pack) = __ldg(reinterpret_cast<const uint4*>(p));
  } else if constexpr (kBytes == 8) {
    *reinterpret_cast<uint2*>(&pack) = __ldg(reinterpret_cast<const uint2*>(p));
  } else if constexpr (kBytes == 4) {
    *reinterpret_cast<uint32_t*>(&pack) = __ldg(reinterpret_cast<const uint32_t*>(p));
  } else if constexpr (kBytes == 2) {
    *reinterpret_cast<uint16_t*>(&pack) = __ldg(reinterpret_cast<const uint16_t*>(p));
  } else {
    *reinterpret_cast<uint8_t*>(&pack) = __ldg(reinterpret_cast<const uint8_t*>(p));
  }
  return pack;
}

template <typename T, int kN>
__device__ __forceinline__ void store_pack(T* p, const Pack<T, kN>& pack) {
  *reinterpret_cast<Pack<T, kN>*>(p) = pack;
}

template <typename T, int kN>
__device__ __forceinline__ Floats<kN> unpack(const Pack<T, kN>& pack) {
  Floats<kN> out;
#pragma unroll
  for (int i = 0; i < kN; ++i) out[i] = to_float(pack.v[i]);
  return out;
}

template <typename T>
__device__ __forceinline__ uint32_t rounded_pair(float low, float high) {
  uint32_t pair;
#if __CUDA_ARCH__ >= 800
  if constexpr (std::is_same_v<T, Half>) {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  } else {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  }
#else
  pair = from_float<T>(low).bits | static_cast<uint32_t>(from_float<T>(high).bits) << 16;
#endif
  return pair;
}

// Rounded once, to nearest even.
template <typename T, int kN>
__device__ __forceinline__ Pack<T, kN> pack(const Floats<kN>& x) {
  Pack<T, kN> out;
  if constexpr (sizeof(T) == 2 && kN % 2 == 0) {
#pragma unroll
    for (int i = 0; i < kN; i += 2) {
      const uint32_t pair = rounded_pair<T>(x[i], x[i + 1]);
      out.v[i].bits = static_cast<uint16_t>(pair);
      out.v[i + 1].bits = static_cast<uint16_t>(pair >> 16);
    }
  } else {
#pragma unroll
    for (int i = 0; i < kN; ++i) out.v[i] = from_float<T>(x[i]);
  }
  return out;
}

template <typename T, int kN>
__device__ __forceinline__ Floats<kN> load(const T* p) {
  return unpack(load_pack<T, kN>(p));
}

template <typename T, int kN>
__device__ __forceinline__ void store(T* p, const Floats<kN>& x) {
  store_pack(p, pack<T>(x));
}

// kN fp32 in 16-byte accesses, however many there are.
template <int kN>
__device__ __forceinline__ Floats<kN> load_vector(const float* p) {
  Floats<kN> out;
  constexpr int kStep = kN % 4 == 0 ? 4 : 1;
#pragma unroll
  for (int i = 0; i < kN; i += kStep) {
    const Pack<float, kStep> part = load_pack<float, kStep>(p + i);
#pragma unroll
    for (int j = 0; j < kStep; ++j) out[i + j] = part.v[j];
  }
  return out;
}

// Per-channel vectors into registers, kN channels a thread; every thread of the block must call. Eight fp32
// are 32 bytes: a warp that read them in 16-byte halves would fetch each sector twice, so they go through
// shared memory.
template <int kN, int kCount>
__device__ __forceinline__ void load_vectors(
    const RowWalk& walk, int64_t channels, const float* const (&from)[kCount], Floats<kN> (&to)[kCount]) {
  if constexpr (kN == 8) {
    __shared__ float staged[kCount][kMostWidth * kN];
    const int64_t first = static_cast<int64_t>(blockIdx.y) * blockDim.x * kN;
    const int here = static_cast<int>(min(static_cast<int64_t>(blockDim.x * kN), channels - first));
    __syncthreads();  // an earlier call of the same kind may still be read
#pragma unroll
    for (int v = 0; v < kCount; ++v)
      for (int i = threadIdx.y * blockDim.x + threadIdx.x; i < here; i += blockDim.x * blockDim.y)
        staged[v][i] = __ldg(from[v] + first + i);
    __syncthreads();
#pragma unroll
    for (int v = 0; v < kCount; ++v) {
#pragma unroll
      for (int i = 0; i < kN; ++i) to[v][i] = staged[v][threadIdx.x * kN + i];
    }
  } else if (walk.active) {
#pragma unroll
    for (int v = 0; v < kCount; ++v) to[v] = load<float, kN>(from[v] + walk.channel);
  }
}

// The other way: what the threads of row 0 hold becomes `to`, per channel. Every thread of the block must
// call.
template <int kN>
__device__ __forceinline__ void store_vector(
    const RowWalk& walk, int64_t channels, const Floats<kN>& from, float* to) {
  if constexpr (kN == 8) {
    __shared__ float staged[kMostWidth * kN];
    const int64_t first = static_cast<int64_t>(blockIdx.y) * blockDim.x * kN;
    const int here = static_cast<int>(min(static_cast<int64_t>(blockDim.x * kN), channels - first));
    __syncthreads();
    if (threadIdx.y == 0) {
#pragma unroll
      for (int i = 0; i < kN; ++i) staged[threadIdx.x * kN + i] = from[i];
    }
    __syncthreads();
    for (int i = threadIdx.y * blockDim.x + threadIdx.x; i < here; i += blockDim.x * blockDim.y)
      to[first + i] = staged[i];
  } else if (threadIdx.y == 0 && walk.active) {
    store<float, kN>(to + walk.channel, from);
  }
}

}  // namespace fusedres::cuda
