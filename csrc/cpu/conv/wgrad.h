// Weight gradients in fp32: dw[k][c][r][s] = sum over all output pixels of dy[pixel][k] * x[pixel's tap][c].
//
// The register tile turned round: the sums are up to 14 filters (AVX2: 6) by 32 channels of dw, and the loop
// runs over pixels. Both operands are copied, some pixels at a time, so that the loop reads memory in order:
// dy in tiles of filters, x in panels of 32 channels with its border of zeros. The sums of those pixels then
// go to a total in memory, which bounds their rounding error.
//
// Threads own tiles or panels of dw, whichever operand is larger; nothing is shared, so that neither the
// number of threads nor their timing changes a bit of the result.
#pragma once

#include <cstdint>

#include "cpu/conv/shape.h"
#include "cpu/conv/winograd.h"

namespace fusedres::conv {

constexpr int64_t kWgradRows = 14;  // 14 x 2 vectors are 28 of AVX-512's 32 registers

// sums[row][0..31] (+)= sum over pixels of a[pixel][row] * b[pixel][0..31].
struct WgradTile {
  const float* a;  // [pixel][rows], dense
  const float* b;
  int64_t images, lines, length;    // pixels: `length` on each of `lines` of `images`
  int64_t b_image, b_line, b_step;  // floats from an image, line, pixel of b to the next
  float* sums;                      // [rows][32]
  bool add;                         // to what `sums` holds
};

// x as its copy takes it: relu(x * scale + shift), or as it is where they are null.
struct Activation {
  const float *scale = nullptr, *shift = nullptr;  // of every channel

  Activation from(int64_t channel) const {
    return scale == nullptr ? *this : Activation{scale + channel, shift + channel};
  }
};

// dw, whose filters are dense: (K, C, R, S), or the same in channels_last order, as the weight lies.
template <typename T>
struct WeightGradient {
  T* data;
  int64_t filter, channel, tap;  // values from one to the next

  WeightGradient(T* data, const Filter& f, bool channels_last)
      : data(data),
        filter(f.in_channels * f.rows * f.cols),
        channel(channels_last ? 1 : f.rows * f.cols),
        tap(channels_last ? f.in_channels : 1) {}
  T* at(int64_t k, int64_t c) const { return data + k * filter + c * channel; }
};

// What one instruction set brings.
struct WgradKernels {
  int64_t fewest_rows, most_rows;  // filters of a tile where there are enough
  int64_t chunk;                   // pixels, or patches, that are copied at once, if a line is not longer
  int64_t copied_bytes;            // of x that a tile of filters runs over: half of L2
  const WinogradTransforms* transforms;  // F(2x2, 3x3)'s
  // The tile of `rows` filters, 1 to most_rows.
  void (*(*tile)(int64_t rows))(const WgradTile&);
  // Copy `pixels` of x, `step` floats apart, into panels of 32 channels, `panel` floats apart, with zeros
  // where the channels end; `x` null: zeros.
  void (*pack_panels)(
      const float* x, int64_t step, int64_t pixels, int64_t channels, Activation activation, float* to,
      int64_t panel);
  // Copy `pixels` of dy, `step` floats apart, into tiles of `rows` filters, `tile` floats apart.
  void (*pack_tiles)(
      const float* dy, int64_t step, int64_t pixels, int64_t channels, int64_t rows, float* to, int64_t tile);
  // Z = A dy A' of one 2 x 2 patch of dy for all tiles; patch[i * 2 + j] null: a pixel outside the image.
  // Point q of the patch goes to to + q * point.
  void (*transform_gradient)(
      const float* const patch[4], int64_t channels, int64_t rows, float* to, int64_t tile, int64_t point);
  // dw = G' M G of 32 channels of one filter: point q at m + q * point, tap t to taps + t * tap.
  void (*transform_filter)(const float* m, int64_t point, float* taps, int64_t tap);
};

extern const WgradKernels kWgradAvx2, kWgradAvx512;

// The pixels whose products are summed in registers: whole images, or some lines of one.
struct WgradChunk {
  Range images, lines;
};

// The tiles of dw that one thread computes.
struct WgradShare {
  Range tiles;   // of filters, Wgrad::tile_rows each
  Range panels;  // of 32 channels
};

class Wgrad {
 public:
  // x and dy: fp32, dense. `winograd`: 3 x 3 filters of stride 1.
  Wgrad(
      const WgradKernels& kernels, bool winograd, const Filter& filter, const Map& x,
      const Activation& activation, const Map& dy, const WeightGradient<float>& dw);

  // Memory of a run by `parts` threads, aligned to 64 bytes.
  int64_t scratch_bytes(int64_t parts) const { return parts * part_bytes(parts); }
  // The share of dw of part `part` of `parts`, all of which may run at once.
  void run(int64_t part, int64_t parts, char* scratch) const;

 private:
  // A copy of part of x: `rows` by `width` pixels of some images, `take` pixels of x apart. It begins at row
  // lines.begin * line - padding of each image.
  struct Region {
    int64_t rows, width, line, take_h, take_w;
    int64_t pixels() const { return rows * width; }
  };
  struct DirectLayout;
  struct WinogradLayout;

  WgradShare share_of(int64_t part, int64_t parts) const;
  int64_t part_bytes(int64_t parts) const;
  int64_t direct_floats(const WgradShare& share) const;
  int64_t winograd_floats(const WgradShare& share) const;

  void copy_input(
      const Region& region, const WgradChunk& chunk, int64_t rows, Range panels, float* to,
      int64_t panel) const;
  // Tap t of channel c of a tile's row lies at sums + t * tap + row * 32 + c.
  void store(int64_t tile, int64_t panel, const float* sums, int64_t tap) const;

  void run_direct(const WgradShare& share, float* memory) const;
  void copy_gradient(const WgradChunk& chunk, Range tiles, float* to, int64_t tile) const;
  void multiply(
      const DirectLayout& layout, const WgradChunk& chunk, int64_t panels, int64_t tiles, const float* a,
      const float* b, float* sums) const;

  void run_winograd(const WgradShare& share, float* memory) const;
  void transform_gradients(
      const WinogradLayout& layout, const WgradChunk& chunk, Range tiles, float* z) const;
  void transform_inputs(
      const WinogradLayout& layout, const WgradChunk& chunk, const float* copied, float* v) const;
  void finish_winograd(int64_t tile, int64_t panel, const float* sums) const;

  const WgradKernels& kernels_;
  bool winograd_;
  Filter filter_;
  Map x_, dy_;
  Activation activation_;
  WeightGradient<float> dw_;
  int64_t tile_rows_, taps_;
};

// How many lines and images a chunk has at most, of maps of `height` lines of `length`.
struct WgradChunks {
  int64_t lines, images;

  WgradChunks(int64_t height, int64_t length, int64_t images, int64_t pixels);
  // each(chunk) in order.
  template <class Each>
  void for_each(int64_t height, int64_t all_images, const Each& each) const {
    for (int64_t n = 0; n < all_images; n += images)
      for (int64_t y = 0; y < height; y += lines)
        each(WgradChunk{
            {n, n + images < all_images ? n + images : all_images},
            {y, y + lines < height ? y + lines : height}});
  }
};

}  // namespace fusedres::conv
