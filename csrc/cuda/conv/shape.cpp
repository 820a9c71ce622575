#include "cuda/conv/shape.h"

#include <algorithm>
#include <numeric>

namespace fusedres::cuda {
namespace {

// One axis of a class of a gradient's pixels: those at i * stride + remainder. Tap r reaches them from source
// pixel (i * stride + remainder + padding - r * dilation) / stride where that is whole.
struct Axis {
  int extent, taps, source_first, tap_step, weight_first, weight_step;

  Axis(int size, int all_taps, int stride, int padding, int dilation, int remainder) {
    extent = remainder < size ? (size - remainder - 1) / stride + 1 : 0;
    const int period = stride / std::gcd(stride, dilation);  // taps from one that reaches to the next
    int first = 0;
    while (first < period && (remainder + padding - first * dilation) % stride != 0) ++first;
    taps = first < period && first < all_taps ? (all_taps - 1 - first) / period + 1 : 0;
    const int last = first + std::max(0, taps - 1) * period;
    // from the last tap back, so that the source is walked upwards as in a forward convolution
    tap_step = period * dilation / stride;
    source_first = taps == 0 ? 0 : (remainder + padding - last * dilation) / stride;
    weight_first = taps == 0 ? 0 : last;
    weight_step = -period;
  }
};

void finish_class(PixelClass& c, int batch) {
  c.pixels = batch * c.rows * c.columns;
  c.by_columns = FastDivision(std::max(1, c.columns));
  c.by_image = FastDivision(std::max(1, c.rows * c.columns));
}

}  // namespace

ConvParams forward_params(const ConvShape& shape) {
  ConvParams p{};
  p.source_h = shape.h;
  p.source_w = shape.w;
  p.source_channels = shape.c;
  p.out_h = shape.out_h();
  p.out_w = shape.out_w();
  p.out_channels = shape.k;
  p.depth = shape.c / shape.groups;
  p.columns = shape.k / shape.groups;
  p.taps = shape.r * shape.s;
  p.source_step_h = shape.stride[0];
  p.source_step_w = shape.stride[1];
  p.out_step_h = p.out_step_w = 1;
  p.splits = 1;
  p.classes = 1;
  PixelClass& c = p.pixel_class[0];
  c.rows = p.out_h;
  c.columns = p.out_w;
  c.source_first_h = -shape.padding[0];
  c.source_first_w = -shape.padding[1];
  c.taps_h = shape.r;
  c.taps_w = shape.s;
  c.tap_step_h = shape.dilation[0];
  c.tap_step_w = shape.dilation[1];
  c.weight_step_h = shape.s;
  c.weight_step_w = 1;
  finish_class(c, shape.n);
  return p;
}

ConvParams gradient_params(const ConvShape& shape, int first_class) {
  ConvParams p{};
  p.source_h = shape.out_h();
  p.source_w = shape.out_w();
  p.source_channels = shape.k;
  p.out_h = shape.h;
  p.out_w = shape.w;
  p.out_channels = shape.c;
  p.depth = shape.k / shape.groups;
  p.columns = shape.c / shape.groups;
  p.taps = shape.r * shape.s;
  p.source_step_h = p.source_step_w = 1;
  p.out_step_h = shape.stride[0];
  p.out_step_w = shape.stride[1];
  p.splits = 1;
  p.classes = std::min(kMaxClasses, gradient_classes(shape) - first_class);
  for (int i = 0; i < p.classes; ++i) {
    PixelClass& c = p.pixel_class[i];
    c.out_first_h = (first_class + i) / shape.stride[1];
    c.out_first_w = (first_class + i) % shape.stride[1];
    const Axis h(shape.h, shape.r, shape.stride[0], shape.padding[0], shape.dilation[0], c.out_first_h);
    const Axis w(shape.w, shape.s, shape.stride[1], shape.padding[1], shape.dilation[1], c.out_first_w);
    c.rows = h.extent;
    c.columns = w.extent;
    c.taps_h = h.taps;
    c.taps_w = w.taps;
    c.source_first_h = h.source_first;
    c.source_first_w = w.source_first;
    c.tap_step_h = h.tap_step;
    c.tap_step_w = w.tap_step;
    c.weight_first = h.weight_first * shape.s + w.weight_first;
    c.weight_step_h = h.weight_step * shape.s;
    c.weight_step_w = w.weight_step;
    finish_class(c, shape.n);
  }
  return p;
}

int number_tiles(ConvParams& p, int tile_m, int tile_n) {
  int tiles = 0;
  for (int i = 0; i < p.classes; ++i) {
    p.pixel_class[i].first_tile = tiles;
    tiles += (p.pixel_class[i].pixels - 1 + tile_m) / tile_m;
  }
  p.tiles_n = (p.columns + tile_n - 1) / tile_n;
  return tiles;
}

}  // namespace fusedres::cuda
