#include "cpu/conv/packed.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "common/element.h"
#include "cpu/conv/winograd_f4.h"

namespace fusedres::conv {
namespace {

// A panel's filters, gathered 16 channels at a time: a cache line of a filter is read once, whichever way the
// weight is laid out (filters a power of two apart share their sets of L1, where 32 lines do not stay), and
// packers write whole lines. Element by element through an index function, packing took longer than a
// training step's last stage.
template <typename T>
class Panel {
 public:
  Panel(const Filter& filter, const void* weights, const int64_t strides[4], int64_t panel)
      : filter_(filter),
        strides_(strides),
        first_(static_cast<const T*>(weights) + panel * kPanel * strides[0]),
        filters_(std::min(kPanel, filter.out_channels - panel * kPanel)),
        taps_(filter.rows * filter.cols),
        gathered_(kChannels * taps_ * kPanel) {}

  // Channel c's weights, [r][s][32]; zeros beyond the last filter and the last channel. Ask in ascending
  // order.
  const T* channel(int64_t c) {
    if (c % kChannels == 0) gather(c);
    return gathered_.data() + c % kChannels * taps_ * kPanel;
  }

  T at(int64_t k, int64_t c, int64_t r, int64_t s) const {
    if (k >= filters_ || c >= filter_.in_channels || s >= filter_.cols) return T{};
    return first_[k * strides_[0] + c * strides_[1] + r * strides_[2] + s * strides_[3]];
  }

 private:
  static constexpr int64_t kChannels = 16;  // a line of fp32

  void gather(int64_t from) {
    const int64_t channels = std::min(kChannels, filter_.in_channels - from);
    if (channels < kChannels) std::fill(gathered_.begin(), gathered_.end(), T{});
    for (int64_t k = 0; k < filters_; ++k)
      for (int64_t r = 0; r < filter_.rows; ++r)
        for (int64_t s = 0; s < filter_.cols; ++s) {
          const T* weight = first_ + k * strides_[0] + from * strides_[1] + r * strides_[2] + s * strides_[3];
          T* to = gathered_.data() + (r * filter_.cols + s) * kPanel + k;
          for (int64_t c = 0; c < channels; ++c) to[c * taps_ * kPanel] = weight[c * strides_[1]];
        }
  }

  const Filter& filter_;
  const int64_t* strides_;
  const T* first_;
  int64_t filters_, taps_;
  std::vector<T> gathered_;
};

// [r][s][c][32]: a k-step of the fp32 tile reads 32 filters of one input value.
void pack_direct_f32(const PackedHeader& header, Panel<float>& panel, float* out) {
  const int64_t channels = header.filter.in_channels, taps = header.filter.rows * header.filter.cols;
  for (int64_t c = 0; c < channels; ++c) {
    const float* gathered = panel.channel(c);
    for (int64_t tap = 0; tap < taps; ++tap)
      std::copy_n(gathered + tap * kPanel, kPanel, out + (tap * channels + c) * kPanel);
  }
}

// The transform matrices G of F(2x2, 3x3) (Lavin and Gray, 2016) and F(4x4, 3x3), applied to three weights.
struct WinogradF2 {
  static constexpr int kSide = 4;
  static void column(double g0, double g1, double g2, double out[kSide]) {
    out[0] = g0;
    out[1] = (g0 + g1 + g2) / 2;
    out[2] = (g0 - g1 + g2) / 2;
    out[3] = g2;
  }
};

struct WinogradF4 {
  static constexpr int kSide = 6;
  static void column(double g0, double g1, double g2, double out[kSide]) {
    winograd_f4::filter_column(g0, g1, g2, out);
  }
};

// U = G g G' of one channel's 32 filters, in double and rounded once; point q goes to out + q * point. Often
// the points lie a power of two apart and share a set of L1, so whole lines are written there, once.
template <class F>
void winograd_filters(const float* __restrict g, int64_t point, float* __restrict out) {
  float u[F::kSide * F::kSide][kPanel];
  for (int64_t k = 0; k < kPanel; ++k) {
    double half[3][F::kSide];
    for (int s = 0; s < 3; ++s)
      F::column(g[s * kPanel + k], g[(3 + s) * kPanel + k], g[(6 + s) * kPanel + k], half[s]);
    for (int i = 0; i < F::kSide; ++i) {
      double whole[F::kSide];
      F::column(half[0][i], half[1][i], half[2][i], whole);
      for (int j = 0; j < F::kSide; ++j) u[i * F::kSide + j][k] = static_cast<float>(whole[j]);
    }
  }
  for (int q = 0; q < F::kSide * F::kSide; ++q) std::copy_n(u[q], kPanel, out + q * point);
}

// [points][c][32]
template <class F>
void pack_winograd_f32(const PackedHeader& header, Panel<float>& panel, float* out) {
  const int64_t point = header.filter.in_channels * kPanel;
  for (int64_t c = 0; c < header.filter.in_channels; ++c)
    winograd_filters<F>(panel.channel(c), point, out + c * kPanel);
}

// [r][s][c / 2][32][2]: vdpbf16ps multiplies pairs of channels of 16 filters.
void pack_dot_bf16(const PackedHeader& header, Panel<BFloat16>& panel, BFloat16* out) {
  const int64_t channels = packed_channels(header), taps = header.filter.rows * header.filter.cols;
  for (int64_t c = 0; c < channels; ++c) {
    const BFloat16* gathered = panel.channel(c);
    for (int64_t tap = 0; tap < taps; ++tap) {
      BFloat16* to = out + ((tap * channels + c) / 2 * kPanel) * 2 + c % 2;
      for (int64_t k = 0; k < kPanel; ++k) to[2 * k] = gathered[tap * kPanel + k];
    }
  }
}

// [r][s][c / 32][2][16][16][2]: a B tile is 16 rows of channel pairs by 16 filters.
void pack_amx_bf16(const PackedHeader& header, Panel<BFloat16>& panel, BFloat16* out) {
  const int64_t channels = packed_channels(header), taps = header.filter.rows * header.filter.cols;
  for (int64_t c = 0; c < channels; ++c) {
    const BFloat16* gathered = panel.channel(c);
    for (int64_t tap = 0; tap < taps; ++tap) {
      BFloat16* tiles = out + (tap * channels + c / 32 * 32) * kPanel + c % 32 / 2 * 32 + c % 2;
      for (int64_t k = 0; k < kPanel; ++k) tiles[k / 16 * 512 + k % 16 * 2] = gathered[tap * kPanel + k];
    }
  }
}

// [r][2][run / 2][16][2]: as above, but channels are counted through the columns (a stem's 7 x 4 values).
void pack_amx_merged_bf16(const PackedHeader& header, const Panel<BFloat16>& panel, BFloat16* out) {
  const int64_t channels = packed_channels(header), run = header.filter.cols * channels;
  for (int64_t r = 0; r < header.filter.rows; ++r)
    for (int64_t half = 0; half < 2; ++half)
      for (int64_t pair = 0; pair < run / 2; ++pair)
        for (int64_t k = 0; k < 16; ++k)
          for (int64_t odd = 0; odd < 2; ++odd) {
            const int64_t at = 2 * pair + odd;
            *out++ = panel.at(half * 16 + k, at % channels, r, at / channels);
          }
}

}  // namespace

bool merges_columns(const PackedHeader& header) { return header.group == 4; }

int64_t panel_bytes(const PackedHeader& header) {
  const Filter& f = header.filter;
  const auto algorithm = static_cast<Algorithm>(header.algorithm);
  const int64_t side = winograd_outputs(algorithm) + 2;
  const int64_t taps = side > 2 ? side * side : f.rows * f.cols;
  return taps * packed_channels(header) * kPanel * element_size(data_type(algorithm));
}

PackedHeader make_header(Algorithm algorithm, const Filter& filter) {
  PackedHeader header{PackedHeader::kMagic, static_cast<int64_t>(algorithm), 0, 1, filter};
  if (algorithm == Algorithm::kDirectBf16Dot) header.group = 2;
  // A stem's 7 columns of 3 channels, padded to 4, make 28 of a tile's 32 multiplications; padded to 32
  // each, they would make 21 of 224.
  if (algorithm == Algorithm::kDirectBf16Amx)
    header.group = filter.in_channels <= 4 && filter.cols <= 8 ? 4 : 32;
  header.bytes = kPackedDataOffset + filter.panels() * panel_bytes(header);
  return header;
}

void write_header(const PackedHeader& header, void* out) { std::memcpy(out, &header, sizeof(header)); }

void pack_panel(
    const PackedHeader& header, const void* weights, const int64_t strides[4], int64_t panel, void* out) {
  const auto algorithm = static_cast<Algorithm>(header.algorithm);
  char* to = static_cast<char*>(out) + kPackedDataOffset + panel * panel_bytes(header);
  if (data_type(algorithm) == DataType::kFloat32) {
    Panel<float> filters(header.filter, weights, strides, panel);
    auto* data = reinterpret_cast<float*>(to);
    switch (winograd_outputs(algorithm)) {
      case 2:
        return pack_winograd_f32<WinogradF2>(header, filters, data);
      case 4:
        return pack_winograd_f32<WinogradF4>(header, filters, data);
      default:
        return pack_direct_f32(header, filters, data);
    }
  }
  Panel<BFloat16> filters(header.filter, weights, strides, panel);
  auto* data = reinterpret_cast<BFloat16*>(to);
  if (algorithm == Algorithm::kDirectBf16Dot) return pack_dot_bf16(header, filters, data);
  return merges_columns(header) ? pack_amx_merged_bf16(header, filters, data)
                                : pack_amx_bf16(header, filters, data);
}

}  // namespace fusedres::conv
