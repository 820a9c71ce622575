#include "cpu/conv/packed.h"

#include <algorithm>
#include <cstring>

#include "common/element.h"

namespace fusedres::conv {
namespace {

// A reader of weight (k, c, r, s), in double; zero beyond the last filter and the last channel.
class Weights {
 public:
  Weights(const Filter& filter, DataType type, const void* data, const int64_t strides[4])
      : filter_(filter), type_(type), data_(data), strides_(strides) {}

  float operator()(int64_t k, int64_t c, int64_t r, int64_t s) const {
    if (k >= filter_.out_channels || c >= filter_.in_channels || s >= filter_.cols) return 0.0f;
    const int64_t at = k * strides_[0] + c * strides_[1] + r * strides_[2] + s * strides_[3];
    return type_ == DataType::kFloat32 ? static_cast<const float*>(data_)[at]
                                       : to_float(static_cast<const BFloat16*>(data_)[at]);
  }

 private:
  const Filter& filter_;
  DataType type_;
  const void* data_;
  const int64_t* strides_;
};

// [panel][r][s][c][32]: a k-step of the fp32 tile reads 32 filters of one input value.
void pack_direct_f32(const PackedHeader& header, const Weights& weights, float* out) {
  const Filter& f = header.filter;
  for (int64_t panel = 0; panel < f.panels(); ++panel)
    for (int64_t r = 0; r < f.rows; ++r)
      for (int64_t s = 0; s < f.cols; ++s)
        for (int64_t c = 0; c < f.in_channels; ++c)
          for (int64_t k = 0; k < kPanel; ++k) *out++ = weights(panel * kPanel + k, c, r, s);
}

// One column of the transform matrix G of F(2x2, 3x3) (Lavin and Gray, 2016) applied to three weights.
void winograd_column(const double g[3], double out[4]) {
  out[0] = g[0];
  out[1] = (g[0] + g[1] + g[2]) / 2;
  out[2] = (g[0] - g[1] + g[2]) / 2;
  out[3] = g[2];
}

// U = G g G', in double and rounded once: [panel][16][c][32].
void pack_winograd_f32(const PackedHeader& header, const Weights& weights, float* out) {
  const Filter& f = header.filter;
  const int64_t point = f.in_channels * kPanel;
  for (int64_t panel = 0; panel < f.panels(); ++panel, out += 16 * point)
    for (int64_t c = 0; c < f.in_channels; ++c)
      for (int64_t k = 0; k < kPanel; ++k) {
        double half[4][3], whole[4][4];
        for (int64_t s = 0; s < 3; ++s) {
          double g[3], column[4];
          for (int64_t r = 0; r < 3; ++r) g[r] = weights(panel * kPanel + k, c, r, s);
          winograd_column(g, column);
          for (int64_t i = 0; i < 4; ++i) half[i][s] = column[i];
        }
        for (int64_t i = 0; i < 4; ++i) {
          winograd_column(half[i], whole[i]);
          for (int64_t j = 0; j < 4; ++j)
            out[(i * 4 + j) * point + c * kPanel + k] = static_cast<float>(whole[i][j]);
        }
      }
}

// [panel][r][s][c / 2][32][2]: vdpbf16ps multiplies pairs of channels of 16 filters.
void pack_dot_bf16(const PackedHeader& header, const Weights& weights, BFloat16* out) {
  const Filter& f = header.filter;
  for (int64_t panel = 0; panel < f.panels(); ++panel)
    for (int64_t r = 0; r < f.rows; ++r)
      for (int64_t s = 0; s < f.cols; ++s)
        for (int64_t c = 0; c < packed_channels(header); c += 2)
          for (int64_t k = 0; k < kPanel; ++k)
            for (int64_t odd = 0; odd < 2; ++odd) *out++ = from_float<BFloat16>(weights(panel * kPanel + k, c + odd, r, s));
}

// [panel][r][s][c / 32][2][16][16][2]: a B tile is 16 rows of channel pairs by 16 filters. Merged columns
// ([panel][r][2][run / 2][16][2]) count their channels through the columns and fill only run / 2 rows.
void pack_amx_bf16(const PackedHeader& header, const Weights& weights, BFloat16* out) {
  const Filter& f = header.filter;
  const bool merged = merges_columns(header);
  const int64_t channels = packed_channels(header);
  const int64_t cols = merged ? 1 : f.cols;
  const int64_t run = merged ? f.cols * channels : channels;
  const int64_t step = std::min<int64_t>(run, 32);
  for (int64_t panel = 0; panel < f.panels(); ++panel)
    for (int64_t r = 0; r < f.rows; ++r)
      for (int64_t s = 0; s < cols; ++s)
        for (int64_t from = 0; from < run; from += step)
          for (int64_t half = 0; half < 2; ++half)
            for (int64_t pair = 0; pair < step / 2; ++pair)
              for (int64_t k = 0; k < 16; ++k)
                for (int64_t odd = 0; odd < 2; ++odd) {
                  const int64_t at = from + 2 * pair + odd;
                  *out++ = from_float<BFloat16>(weights(panel * kPanel + half * 16 + k, at % channels, r, merged ? at / channels : s));
                }
}

}  // namespace

bool merges_columns(const PackedHeader& header) { return header.group == 4; }

int64_t panel_bytes(const PackedHeader& header) {
  const Filter& f = header.filter;
  switch (static_cast<Algorithm>(header.algorithm)) {
    case Algorithm::kDirectF32: return f.rows * f.cols * f.in_channels * kPanel * 4;
    case Algorithm::kWinogradF32: return 16 * f.in_channels * kPanel * 4;
    default: return f.rows * f.cols * packed_channels(header) * kPanel * 2;
  }
}

PackedHeader make_header(Algorithm algorithm, const Filter& filter) {
  PackedHeader header{PackedHeader::kMagic, static_cast<int64_t>(algorithm), 0, 1, filter};
  if (algorithm == Algorithm::kDirectBf16Dot) header.group = 2;
  // A stem's 7 columns of 3 channels, padded to 4, make 28 of a tile's 32 multiplications; padded to 32
  // each, they would make 21 of 224.
  if (algorithm == Algorithm::kDirectBf16Amx) header.group = filter.in_channels <= 4 && filter.cols <= 8 ? 4 : 32;
  header.bytes = kPackedDataOffset + filter.panels() * panel_bytes(header);
  return header;
}

void pack_weights(const PackedHeader& header, const void* weights, const int64_t strides[4], void* out) {
  const auto algorithm = static_cast<Algorithm>(header.algorithm);
  const Weights reader(header.filter, data_type(algorithm), weights, strides);
  std::memcpy(out, &header, sizeof(header));
  char* data = static_cast<char*>(out) + kPackedDataOffset;
  switch (algorithm) {
    case Algorithm::kDirectF32: return pack_direct_f32(header, reader, reinterpret_cast<float*>(data));
    case Algorithm::kWinogradF32: return pack_winograd_f32(header, reader, reinterpret_cast<float*>(data));
    case Algorithm::kDirectBf16Dot: return pack_dot_bf16(header, reader, reinterpret_cast<BFloat16*>(data));
    case Algorithm::kDirectBf16Amx: return pack_amx_bf16(header, reader, reinterpret_cast<BFloat16*>(data));
  }
}

}  // namespace fusedres::conv
