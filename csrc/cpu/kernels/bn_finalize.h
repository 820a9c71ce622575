// Merge the tiles' moments in their order, in fp64, and derive the normalising affine.
#pragma once

#include <cmath>
#include <vector>

#include "common/moments.h"
#include "cpu/kernels/params.h"
#include "cpu/kernels/vec.h"

namespace fusedres::FUSEDRES_ISA {

inline void bn_finalize_kernel(const BnFinalize& k) {
  const int64_t channels = k.channels;
  std::vector<double> scratch(2 * channels, 0.0);
  double* __restrict__ mean = scratch.data(), * __restrict__ m2 = mean + channels;
  double total = 0.0;
  for (int64_t tile = 0; tile < k.tiles; ++tile) {
    if (k.count[tile] == 0.0f) continue;
    const ChanMerge<double> merge(total, k.count[tile]);
    const float *tile_mean = k.mean + tile * channels, *tile_m2 = k.m2 + tile * channels;
    for (int64_t c = 0; c < channels; ++c) merge(mean[c], m2[c], tile_mean[c], tile_m2[c]);
    total += k.count[tile];
  }
  for (int64_t c = 0; c < channels; ++c) {
    const double var = total > 0.0 ? m2[c] / total : 0.0;  // of no values: mean and variance 0
    const double invstd = 1.0 / std::sqrt(var + k.eps);
    const double scale = invstd * (k.gamma ? k.gamma[c] : 1.0f);
    k.out_mean[c] = static_cast<float>(mean[c]);
    k.var[c] = static_cast<float>(var);
    k.invstd[c] = static_cast<float>(invstd);
    k.scale[c] = static_cast<float>(scale);
    // of the rounded mean and scale, so that the affine takes the mean to beta as exactly as fp32 can
    const double at_mean = static_cast<double>(k.out_mean[c]) * k.scale[c];
    k.shift[c] = static_cast<float>((k.beta ? k.beta[c] : 0.0f) - at_mean);
  }
}

}  // namespace fusedres::FUSEDRES_ISA
