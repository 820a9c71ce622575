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

// fp32 in 16-byte accesses, however many there are.
template <int kN>
__device__ __forceinline__ void store_vector(float* p, const Floats<kN>& x) {
  constexpr int kStep = kN % 4 == 0 ? 4 : 1;
#pragma unroll
  for (int i = 0; i < kN; i += kStep) {
    Pack<float, kStep> part;
#pragma unroll
    for (int j = 0; j < kStep; ++j) part.v[j] = x[i + j];
    store_pack(p + i, part);
  }
}

// Per-channel fp32, kN at a time.
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

}  // namespace fusedres::cuda
