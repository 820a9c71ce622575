// Sizes of the patches that a convolution's tiles read. Host only.
#pragma once

#include "cuda/conv/params.h"

namespace fusedres::cuda {

// Fills p.patch for tiles of tile_m pixels, p.weight_depth being set; false where the convolution cannot be
// read from patches (the taps, the stride, more than one class of pixels). Whether a patch fits into shared
// memory is another question.
bool plan_patch(ConvParams& p, int tile_m);

}  // namespace fusedres::cuda
