// Tensor-core instructions and asynchronous copies, one wrapper each (PTX ISA: mma, ldmatrix, cp.async).
#pragma once

#include <cstdint>

#include "common/element.h"
#include "cuda/common/sm80.h"

namespace fusedres::cuda {

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// Keeps a value in its register: the compiler would compute a lane's addresses anew in every turn of a loop,
// from the thread's number, at ten instructions each.
__device__ __forceinline__ uint32_t kept(uint32_t value) {
  asm volatile("" : "+r"(value));
  return value;
}

// Global to shared memory, past the registers. kBytes is 4, 8 or 16; 16 bytes bypass L1 as well (.cg), and
// ask L2 for the whole 128-byte line, since the neighbouring threads want the rest of it. Where `valid` is
// false the source is not read, and the destination becomes zero.
template <int kBytes = 16>
__device__ __forceinline__ void cp_async(uint32_t destination, const void* source, bool valid) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16, "what cp.async copies");
  [[maybe_unused]] const int bytes = valid ? kBytes : 0;
  if constexpr (kBytes == 16) {
    FUSEDRES_SM80(asm volatile(
        "cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;\n" ::"r"(destination), "l"(source),
        "r"(bytes) : "memory"));
  } else {
    FUSEDRES_SM80(asm volatile(
        "cp.async.ca.shared.global [%0], [%1], %2, %3;\n" ::"r"(destination), "l"(source), "n"(kBytes),
        "r"(bytes) : "memory"));
  }
}

__device__ __forceinline__ void cp_async_commit() {
  FUSEDRES_SM80(asm volatile("cp.async.commit_group;\n" :: : "memory"));
}

// Until at most kPending of this thread's newest groups are under way.
template <int kPending>
__device__ __forceinline__ void cp_async_wait() {
  FUSEDRES_SM80(asm volatile("cp.async.wait_group %0;\n" ::"n"(kPending) : "memory"));
}

// Four 8 x 8 matrices of 16-bit values; lanes 8i to 8i + 7 give the row addresses (16-byte aligned) of matrix
// i. Lane l receives of each the 32 bits at row l / 4, 4-byte column l % 4: with fp32 data an 8 x 4 matrix,
// which is what mma.m16n8k8.tf32 takes, so that one addressing serves both.
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], uint32_t row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(row)
               : "memory");
}

// The same, each matrix transposed (16-bit values only).
__device__ __forceinline__ void ldmatrix_x4_trans(uint32_t (&r)[4], uint32_t row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(row)
               : "memory");
}

// d (16 x 8) += a (16 x 32 bytes, row major) * b (32 bytes x 8, column major): a reduction over 16 values of
// 16 bits, or 8 of fp32 in TF32. Lane l holds of d the rows l / 4 and l / 4 + 8, columns 2 (l % 4) and the
// next.
template <typename T>
__device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);

#define FUSEDRES_MMA(T, shape, types)                                                                        \
  template <>                                                                                                \
  __device__ __forceinline__ void mma<T>(float(&d)[4], const uint32_t(&a)[4], uint32_t b0, uint32_t b1) {    \
    FUSEDRES_SM80(asm(                                                                                       \
        "mma.sync.aligned." shape ".row.col." types                                                          \
        " {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n" : "+f"(d[0]),                             \
        "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1))); \
  }

FUSEDRES_MMA(Half, "m16n8k16", "f32.f16.f16.f32")
FUSEDRES_MMA(BFloat16, "m16n8k16", "f32.bf16.bf16.f32")
FUSEDRES_MMA(float, "m16n8k8", "f32.tf32.tf32.f32")
#undef FUSEDRES_MMA

// fp32 bits to the nearest TF32: the tensor core itself drops the low 13 bits, which is biased towards zero.
__device__ __forceinline__ uint32_t to_tf32(uint32_t bits) {
  uint32_t rounded{};
  FUSEDRES_SM80(asm("cvt.rna.tf32.f32 %0, %1;\n" : "=r"(rounded) : "f"(__uint_as_float(bits))));
  return rounded;
}

}  // namespace fusedres::cuda
