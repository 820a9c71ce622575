// out = relu(a * sa + ta [+ b | + b * sb + tb]), rows of `channels` values.
#pragma once

#include <cstdint>

#include "cuda/common/launch.h"

namespace fusedres::cuda {

// Null: no b; no affine of b.
template <typename T>
struct AffineAddActParams {
  const T *a, *b;
  const float *sa, *ta, *sb, *tb;
  T* out;
  int64_t rows, channels;
};

// aligned: every tensor starts on 16 bytes.
template <typename T>
void launch_affine_add_act(
    const AffineAddActParams<T>& params, bool relu, bool aligned, const Target& target);

}  // namespace fusedres::cuda
