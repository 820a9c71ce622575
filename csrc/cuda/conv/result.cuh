// Which pixels and channels of the result a block computes.
#pragma once

#include "cuda/conv/params.h"

namespace fusedres::cuda {

struct TilePlace {
  int pixel_class;
  int tile;         // among the tiles of all classes: where its partials go
  int first_pixel;  // of the class
  int group;
  int first_column;  // of the group

  // Blocks that follow each other share their pixels, and find them in L2.
  __device__ static TilePlace of(const ConvParams& p, int tile_m, int tile_n) {
    TilePlace place;
    place.group = blockIdx.y;
    place.tile = static_cast<int>(blockIdx.x) / p.tiles_n;
    place.first_column = (static_cast<int>(blockIdx.x) - place.tile * p.tiles_n) * tile_n;
    place.pixel_class = 0;
    while (place.pixel_class + 1 < p.classes &&
           place.tile >= p.pixel_class[place.pixel_class + 1].first_tile) {
      ++place.pixel_class;
    }
    place.first_pixel = (place.tile - p.pixel_class[place.pixel_class].first_tile) * tile_m;
    return place;
  }
};

// Element offset of a class's pixel in the result, at its first channel.
__device__ __forceinline__ int64_t result_offset(const ConvParams& p, const PixelClass& c, int pixel) {
  int64_t place = pixel;
  if (p.out_step_h > 1 || p.out_step_w > 1) {
    uint32_t in_image, column;
    const uint32_t image = c.by_image.divide(pixel, in_image);
    const uint32_t row = c.by_columns.divide(in_image, column);
    const int64_t h = static_cast<int64_t>(row) * p.out_step_h + c.out_first_h;
    const int64_t w = static_cast<int64_t>(column) * p.out_step_w + c.out_first_w;
    place = (image * static_cast<int64_t>(p.out_h) + h) * p.out_w + w;
  }
  return place * p.out_channels;
}

}  // namespace fusedres::cuda
