// A convolution by plain loops, for the engine to be compared with. In a file of its own, so that it is
// optimized, and no sanitizer slows it, where the engine is built for a sanitizer.
#pragma once

#include "cpu/conv/shape.h"

namespace fusedres::conv {

// Write the sums of products, without epilogue, to `sums` (NPQK). `x` is NHWC; `w` is K, C / groups, R, S.
void plain_conv(
    const Filter& filter, int64_t images, int64_t height, int64_t width, const float* x, const float* w,
    double* sums);

}  // namespace fusedres::conv
