// What a convolution is, for every file of this directory: sizes, element type, algorithm.
// Nothing here knows torch; the engine compiles and tests without it.
#pragma once

#include <cstdint>

namespace fusedres::conv {

enum class DataType : int32_t { kFloat32 = 0, kBFloat16 = 1 };

inline int64_t element_size(DataType type) { return type == DataType::kFloat32 ? 4 : 2; }

// The algorithm is fixed when the weights are packed, because each has a weight layout of its own.
enum class Algorithm : int32_t {
  kDirectF32 = 0,        // register tiles of fp32 FMAs
  kWinogradF32 = 1,      // F(2x2, 3x3): 16 products for 4 outputs instead of 36
  kDirectBf16Dot = 2,    // pairs of bf16, fp32 accumulation: vdpbf16ps, or FMAs of the widened values
  kDirectBf16Amx = 3,    // tdpbf16ps on 16 x 32 tiles, fp32 accumulation
  kWinograd4F32 = 4,     // F(4x4, 3x3): 36 products for 16 outputs instead of 144; rounds more
  kDirectF32Amx = 5,     // each fp32 as three bf16 parts, six products of parts on the matrix unit
  kDirect2F32Amx = 6,    // as two parts, three products
  kWinograd2F32Amx = 7,  // F(2x2, 3x3) with its products made of two parts
  kWinogradBf16Dot = 8,  // F(2x2, 3x3) of bf16 by vdpbf16ps: both transforms are rounded to bf16
};
constexpr int32_t kAlgorithms = 9;

// The algorithm's side of a square of outputs, of F(2x2, 3x3) and F(4x4, 3x3); 0 of the others.
inline int64_t winograd_outputs(Algorithm algorithm) {
  switch (algorithm) {
    case Algorithm::kWinogradF32:
    case Algorithm::kWinograd2F32Amx:
    case Algorithm::kWinogradBf16Dot:
      return 2;
    case Algorithm::kWinograd4F32:
      return 4;
    default:
      return 0;
  }
}

// The bf16 parts of an fp32 operand whose products are those of its parts; 0 of the other algorithms.
inline int64_t parts_of(Algorithm algorithm) {
  switch (algorithm) {
    case Algorithm::kDirectF32Amx:
      return 3;
    case Algorithm::kDirect2F32Amx:
    case Algorithm::kWinograd2F32Amx:
      return 2;
    default:
      return 0;
  }
}

inline DataType data_type(Algorithm algorithm) {
  switch (algorithm) {
    case Algorithm::kDirectBf16Dot:
    case Algorithm::kDirectBf16Amx:
    case Algorithm::kWinogradBf16Dot:
      return DataType::kBFloat16;
    default:
      return DataType::kFloat32;
  }
}

// Filters of every algorithm are packed in panels of 32 (two vectors of 16 fp32), the last one filled with
// zeros.
constexpr int64_t kPanel = 32;

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }
// Where `part` begins if `count` things are cut into `parts` whose sizes differ by one at most: of pairs only
// the last is short. Of nothing there may be no parts.
inline int64_t first_of_part(int64_t count, int64_t part, int64_t parts) {
  return part == 0 ? 0 : ceil_div(count * part, parts);
}

// The part of a convolution that its weights know.
struct Filter {
  int64_t out_channels = 0;  // K
  int64_t in_channels = 0;   // C
  int64_t rows = 0;          // R
  int64_t cols = 0;          // S
  int64_t stride_h = 1, stride_w = 1;
  int64_t pad_h = 0, pad_w = 0;
  int64_t dilation_h = 1, dilation_w = 1;
  int64_t groups = 1;
  // Rows and columns of zeros behind the map beyond the pad_h and pad_w there; below 0: fewer.
  int64_t behind_h = 0, behind_w = 0;

  int64_t panels() const { return ceil_div(out_channels, kPanel); }
  bool pointwise() const { return rows == 1 && cols == 1 && pad_h == 0 && pad_w == 0; }
  // Input rows and columns from the first tap to the last.
  int64_t extent_h() const { return (rows - 1) * dilation_h + 1; }
  int64_t extent_w() const { return (cols - 1) * dilation_w + 1; }
  int64_t out_height(int64_t height) const {
    return steps(height + 2 * pad_h + behind_h - extent_h(), stride_h);
  }
  int64_t out_width(int64_t width) const {
    return steps(width + 2 * pad_w + behind_w - extent_w(), stride_w);
  }
  int64_t group_inputs() const { return in_channels / groups; }
  int64_t group_filters() const { return out_channels / groups; }

 private:
  // None where the filter is larger than the padded input.
  static int64_t steps(int64_t room, int64_t stride) { return room < 0 ? 0 : room / stride + 1; }
};

// Images in NHWC order. Strides are in bytes, so that one driver serves every element type.
struct Map {
  char* data = nullptr;  // channel 0 of pixel (0, 0) of image 0
  int64_t images = 0, height = 0, width = 0, channels = 0;
  int64_t pixel = 0, row = 0, image = 0;

  char* at(int64_t n, int64_t y, int64_t x) const { return data + n * image + y * row + x * pixel; }
  bool dense() const { return row == width * pixel && image == height * row; }
  Map from_image(int64_t first, int64_t count) const {
    Map part = *this;
    part.data += first * image;
    part.images = count;
    return part;
  }
};

inline Map dense_map(
    void* data, int64_t images, int64_t height, int64_t width, int64_t channels, int64_t element) {
  const int64_t pixel = channels * element;
  return {static_cast<char*>(data), images, height, width, channels, pixel, pixel * width,
          pixel * width * height};
}

// out = relu?(conv * scale + shift + residual?), of fp32 rounded to bf16's values where `rounds`.
struct Epilogue {
  const float* scale = nullptr;  // round_up(K, 32) values each
  const float* shift = nullptr;
  bool relu = false;
  bool rounds = false;
};

// Told of output pixels (in the order n, y, x) that are complete and still near: of [first, end), which one
// thread computed, [begin, end) are new. Pixels that nobody was told of are complete when the convolution
// ends.
struct Watcher {
  void (*completed)(void* context, int64_t first, int64_t begin, int64_t end) = nullptr;
  void* context = nullptr;

  void tell(int64_t first, int64_t begin, int64_t end) const {
    if (completed != nullptr && begin < end) completed(context, first, begin, end);
  }
};

// [begin, end) of part `part` of `parts` of `count` things.
struct Range {
  int64_t begin, end;

  int64_t size() const { return end - begin; }
};
inline Range share(int64_t count, int64_t part, int64_t parts) {
  return {count * part / parts, count * (part + 1) / parts};
}

}  // namespace fusedres::conv
