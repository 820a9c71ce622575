// What happens to a chunk of the source between shared memory and the matrix instructions: functors.
//
// A prologue transforms, in place, the chunks that its own thread copied, before the block's barrier. Padding
// is not transformed, so that it stays zero. kSources tensors are copied; the second one lies behind the
// first.
#pragma once

#include "cuda/conv/operand.cuh"
#include "cuda/conv/params.h"

namespace fusedres::cuda {

// The source as it is.
struct Raw {
  static constexpr bool kForms = false;
  static constexpr int kSources = 1;
};

// relu(x * scale + shift), rounded to the element type as if it had been written.
struct Activated {
  static constexpr bool kForms = true;
  static constexpr int kSources = 1;

  template <typename T, bool kWhole>
  struct Coefficients {
    Values<T> scale, shift;

    __device__ Coefficients(const PrologueParams& p, int channel, int count)
        : scale(coefficients<T, kWhole>(p.scale, channel, count, 1.0f)),
          shift(coefficients<T, kWhole>(p.shift, channel, count, 0.0f)) {}

    __device__ uint4 operator()(uint4 chunk, uint4) const { return activated<T>(chunk, scale, shift); }
  };
};

// BatchNorm's input gradient: p * dz + r + q * y, or with p alone p * dz (the second source is then absent).
struct NormGradient {
  static constexpr bool kForms = true;
  static constexpr int kSources = 2;

  template <typename T, bool kWhole>
  struct Coefficients {
    Values<T> p, q, r;

    __device__ Coefficients(const PrologueParams& given, int channel, int count)
        : p(coefficients<T, kWhole>(given.scale, channel, count, 1.0f)),
          q(coefficients<T, kWhole>(given.other_scale, channel, count, 0.0f)),
          r(coefficients<T, kWhole>(given.shift, channel, count, 0.0f)) {}

    __device__ uint4 operator()(uint4 chunk, uint4 other) const {
      return output_gradient<T>(chunk, other, p, q, r);
    }
  };
};

}  // namespace fusedres::cuda
