// The last step of every backward reduction: merge the chunks' partial sums, in their order.
#pragma once

#include "cpu/tensor.h"

namespace fusedres::cpu {

// (2, C) fp32 from (chunks, 3, C) fp64: row 0, and row `second` (1 or 2) times invstd, or zeros without it.
// The partial sums are of dz * (y - mean); times invstd they are those of dz * x_hat.
inline Tensor merge_sums(
    const std::vector<double>& partial, const Tensor& like, int64_t chunks, int64_t channels, int second,
    const float* invstd) {
  Tensor sums = empty(like, {2, channels});
  float* out = mutable_data<float>(sums);
  std::vector<double> total(2 * channels, 0.0);
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    const double* sum = partial.data() + chunk * 3 * channels;
    const double* dot = sum + second * channels;
    for (int64_t c = 0; c < channels; ++c) total[c] += sum[c];
    for (int64_t c = 0; c < channels; ++c) total[channels + c] += dot[c];
  }
  for (int64_t c = 0; c < channels; ++c) {
    out[c] = static_cast<float>(total[c]);
    out[channels + c] = invstd == nullptr ? 0.0f : static_cast<float>(total[channels + c] * invstd[c]);
  }
  return sums;
}

}  // namespace fusedres::cpu
