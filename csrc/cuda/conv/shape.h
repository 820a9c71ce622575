// A convolution's sizes, and from them the geometry part of a kernel's parameters. Host only, free of torch.
#pragma once

#include <cstdint>

#include "cuda/conv/params.h"

namespace fusedres::cuda {

// Of the forward convolution, in torch's terms: x (n, c, h, w), weight (k, c / groups, r, s).
struct ConvShape {
  int n, c, h, w;
  int k, r, s;
  int stride[2], padding[2], dilation[2];
  int groups;

  int out_h() const { return extent(h, r, 0); }
  int out_w() const { return extent(w, s, 1); }

 private:
  int extent(int size, int taps, int axis) const {
    return (size + 2 * padding[axis] - dilation[axis] * (taps - 1) - 1) / stride[axis] + 1;
  }
};

// Pointers and everything that is not geometry stay zero.
ConvParams forward_params(const ConvShape& shape);

// The gradient's classes from `first_class` on, at most kMaxClasses of the stride[0] * stride[1] there are.
ConvParams gradient_params(const ConvShape& shape, int first_class);

inline int gradient_classes(const ConvShape& shape) { return shape.stride[0] * shape.stride[1]; }

// Numbers the tiles of the classes for tiles of tile_m x tile_n; returns how many tile rows there are in all.
int number_tiles(ConvParams& p, int tile_m, int tile_n);

}  // namespace fusedres::cuda
