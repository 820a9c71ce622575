#include "cpu/conv/packed.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "common/element.h"
#include "cpu/conv/parts.h"
#include "cpu/conv/support.h"
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
  Panel(const PackedHeader& header, const void* weights, const int64_t strides[4], int64_t panel)
      : filter_(header.filter),
        strides_(strides),
        first_filter_(panel * kPanel),
        first_channel_(first_channel(header, panel)),
        first_(static_cast<const T*>(weights) + panel * kPanel * strides[0]),
        filters_(std::min(kPanel, filter_.out_channels - first_filter_)),
        taps_(filter_.rows * filter_.cols),
        gathered_(kChannels * taps_ * kPanel) {}

  // The weights of channel c of the panel's run, [r][s][32]; zeros beyond the last filter and the last
  // channel, and where a filter lies in another group. Ask in ascending order.
  const T* channel(int64_t c) {
    if (c % kChannels == 0) gather(c);
    return gathered_.data() + c % kChannels * taps_ * kPanel;
  }

  // c: a channel of the filter's own group.
  T at(int64_t k, int64_t c, int64_t r, int64_t s) const {
    if (k >= filters_ || c >= filter_.group_inputs() || s >= filter_.cols) return T{};
    return first_[k * strides_[0] + c * strides_[1] + r * strides_[2] + s * strides_[3]];
  }

 private:
  static constexpr int64_t kChannels = 16;  // a line of fp32

  void gather(int64_t from) {
    if (filter_.groups > 1 || filter_.in_channels - from < kChannels)
      std::fill(gathered_.begin(), gathered_.end(), T{});
    for (int64_t k = 0; k < filters_; ++k) {
      // Where the channels of the filter's group lie in the panel's run.
      const int64_t group = (first_filter_ + k) / filter_.group_filters();
      const int64_t own = group * filter_.group_inputs() - first_channel_;
      const Range now{std::max(own, from), std::min(own + filter_.group_inputs(), from + kChannels)};
      for (int64_t r = 0; r < filter_.rows; ++r)
        for (int64_t s = 0; s < filter_.cols; ++s) {
          const T* weight = first_ + k * strides_[0] + r * strides_[2] + s * strides_[3];
          T* to = gathered_.data() + (r * filter_.cols + s) * kPanel + k;
          for (int64_t c = now.begin; c < now.end; ++c)
            to[(c - from) * taps_ * kPanel] = weight[(c - own) * strides_[1]];
        }
    }
  }

  const Filter& filter_;
  const int64_t* strides_;
  const int64_t first_filter_, first_channel_;
  const T* first_;
  int64_t filters_, taps_;
  std::vector<T> gathered_;
};

// A step's values of 32 filters, `width` values a filter, in the passes of `steps` steps.
template <typename T>
void put_step(
    const PackedHeader& header, const T* values, int64_t width, int64_t step, int64_t steps, T* out) {
  const int64_t pass = header.pass * width;
  for (int64_t at = 0; at < kPanel * width; at += pass)
    std::copy_n(values + at, pass, out + at * steps + step * pass);
}

// [pass][r][s][c][filter of the pass]: a step of the fp32 tile reads the filters of one input value.
void pack_direct_f32(const PackedHeader& header, Panel<float>& panel, float* out) {
  const int64_t channels = header.run, taps = header.filter.rows * header.filter.cols;
  for (int64_t c = 0; c < channels; ++c) {
    const float* gathered = panel.channel(c);
    for (int64_t tap = 0; tap < taps; ++tap)
      put_step(header, gathered + tap * kPanel, 1, tap * channels + c, taps * channels, out);
  }
}

// [r][s][block][4][32]: filter f of a quad's four, at turn j, is the weight of the block's channel f for
// filter f + j.
void pack_quads_f32(const PackedHeader& header, const Panel<float>& panel, float* out) {
  for (int64_t r = 0; r < header.filter.rows; ++r)
    for (int64_t s = 0; s < header.filter.cols; ++s)
      for (int64_t block = 0; block < quad_blocks(header); ++block)
        for (int64_t turn = 0; turn < 4; ++turn)
          for (int64_t f = 0; f < kPanel; ++f)
            *out++ = panel.at(f / 4 * 4 + (f + turn) % 4, 4 * block + f % 4, r, s);
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

// U = G g G' of one channel's 32 filters, [point][filter], in double and rounded once. It is copied to its
// place by whole lines: often the points lie a power of two apart and share a set of L1.
template <class F>
void winograd_filters(const float* __restrict g, float (&u)[F::kSide * F::kSide][kPanel]) {
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
}

// [point][pass][c][filter of the pass]
template <class F>
void pack_winograd_f32(const PackedHeader& header, Panel<float>& panel, float* out) {
  constexpr int kPoints = F::kSide * F::kSide;
  const int64_t channels = header.filter.in_channels;
  float u[kPoints][kPanel];
  for (int64_t c = 0; c < channels; ++c) {
    winograd_filters<F>(panel.channel(c), u);
    for (int q = 0; q < kPoints; ++q) put_step(header, u[q], 1, c, channels, out + q * channels * kPanel);
  }
}

// [point][pass][c / 2][filter of the pass][2]
void pack_winograd_bf16(const PackedHeader& header, Panel<BFloat16>& panel, BFloat16* out) {
  constexpr int64_t kPoints = WinogradF2::kSide * WinogradF2::kSide;
  const int64_t channels = header.run;
  float g[9 * kPanel], u[kPoints][kPanel];
  BFloat16 pairs[kPoints][2 * kPanel];
  for (int64_t c = 0; c < channels; ++c) {
    const BFloat16* gathered = panel.channel(c);
    std::transform(gathered, gathered + 9 * kPanel, g, [](BFloat16 x) { return to_float(x); });
    winograd_filters<WinogradF2>(g, u);
    for (int64_t q = 0; q < kPoints; ++q)
      for (int64_t k = 0; k < kPanel; ++k) pairs[q][2 * k + c % 2] = from_float<BFloat16>(u[q][k]);
    if (c % 2 == 0) continue;
    for (int64_t q = 0; q < kPoints; ++q)
      put_step(header, pairs[q], 2, c / 2, channels / 2, out + q * channels * kPanel);
  }
}

// [pass][r][s][c / 2][filter of the pass][2]: vdpbf16ps multiplies pairs of channels of 16 filters.
void pack_dot_bf16(const PackedHeader& header, Panel<BFloat16>& panel, BFloat16* out) {
  const int64_t channels = header.run, taps = header.filter.rows * header.filter.cols;
  std::vector<BFloat16> pairs(taps * 2 * kPanel);
  for (int64_t c = 0; c < channels; ++c) {
    const BFloat16* gathered = panel.channel(c);
    for (int64_t i = 0; i < taps * kPanel; ++i) pairs[2 * i + c % 2] = gathered[i];
    if (c % 2 == 0) continue;
    for (int64_t tap = 0; tap < taps; ++tap)
      put_step(
          header, pairs.data() + tap * 2 * kPanel, 2, (tap * channels + c) / 2, taps * channels / 2, out);
  }
}

// [r][s][c / 32][2][16][16][2]: a B tile is 16 rows of channel pairs by 16 filters.
void pack_amx_bf16(const PackedHeader& header, Panel<BFloat16>& panel, BFloat16* out) {
  const int64_t channels = header.run, taps = header.filter.rows * header.filter.cols;
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

// Taps or points of Winograd's, [2][taps][...] as above if they follow each other in a sum, else
// [points][2][...].
void pack_parts_f32(const PackedHeader& header, Panel<float>& panel, BFloat16* out) {
  const auto algorithm = static_cast<Algorithm>(header.algorithm);
  const int64_t outputs = winograd_outputs(algorithm), parts = parts_of(algorithm);
  const int64_t taps = outputs > 0 ? (outputs + 2) * (outputs + 2) : header.filter.rows * header.filter.cols;
  std::vector<float> lines(taps * header.run * kPanel);
  outputs > 0 ? pack_winograd_f32<WinogradF2>(header, panel, lines.data())
              : pack_direct_f32(header, panel, lines.data());
  const int64_t half = round_up(header.run, 32) * 16 * parts;
  for (int64_t tap = 0; tap < taps; ++tap)
    pack_parts(
        lines.data() + tap * header.run * kPanel, header.run, parts, outputs > 0 ? half : taps * half,
        out + tap * half * (outputs > 0 ? 2 : 1));
}

// Channels that the filters of one panel read, at most.
int64_t widest_run(const Filter& filter) {
  int64_t widest = 0;
  for (int64_t panel = 0; panel < filter.panels(); ++panel) {
    const int64_t last = std::min((panel + 1) * kPanel, filter.out_channels) - 1;
    const int64_t groups = last / filter.group_filters() - panel * kPanel / filter.group_filters() + 1;
    widest = std::max(widest, groups * filter.group_inputs());
  }
  return widest;
}

}  // namespace

bool merges_columns(const PackedHeader& header) { return header.group == 4; }

int64_t quad_blocks(const PackedHeader& header) {
  const Filter& f = header.filter;
  const int64_t inputs = f.group_inputs();
  const bool quads = static_cast<Algorithm>(header.algorithm) == Algorithm::kDirectF32 && f.groups > 1 &&
                     (inputs == 4 || inputs == 8 || inputs == 16) && f.group_filters() == inputs &&
                     f.out_channels % kPanel == 0;
  return quads ? inputs / 4 : 0;
}

int64_t first_channel(const PackedHeader& header, int64_t panel) {
  const Filter& f = header.filter;
  const int64_t first = panel * kPanel / f.group_filters() * f.group_inputs();
  // The last panels' runs end with the channels.
  return quad_blocks(header) > 0 ? first : std::min(first, packed_channels(header) - header.run);
}

int64_t panel_bytes(const PackedHeader& header) {
  const Filter& f = header.filter;
  const auto algorithm = static_cast<Algorithm>(header.algorithm);
  const int64_t side = winograd_outputs(algorithm) + 2;
  const int64_t taps = side > 2 ? side * side : f.rows * f.cols;
  if (const int64_t parts = parts_of(algorithm)) return taps * round_up(header.run, 32) * kPanel * parts * 2;
  return taps * header.run * kPanel * element_size(data_type(algorithm));
}

PackedHeader make_header(Algorithm algorithm, const Filter& filter) {
  PackedHeader header{PackedHeader::kMagic, static_cast<int64_t>(algorithm), 0, 1, 0, kPanel, filter};
  if (algorithm == Algorithm::kDirectBf16Dot || algorithm == Algorithm::kWinogradBf16Dot) header.group = 2;
  // A stem's 7 columns of 3 channels, padded to 4, make 28 of a tile's 32 multiplications; padded to 32
  // each, they would make 21 of 224.
  if (algorithm == Algorithm::kDirectBf16Amx)
    header.group =
        filter.in_channels <= 4 && filter.cols <= 8 && filter.groups == 1 && filter.dilation_w == 1 ? 4 : 32;
  header.run = quad_blocks(header) > 0
                   ? filter.group_inputs()
                   : std::min(round_up(widest_run(filter), header.group), packed_channels(header));
  header.pass = tiles_of(header).pass;
  header.bytes = kPackedDataOffset + filter.panels() * panel_bytes(header);
  return header;
}

void write_header(const PackedHeader& header, void* out) { std::memcpy(out, &header, sizeof(header)); }

void pack_panel(
    const PackedHeader& header, const void* weights, const int64_t strides[4], int64_t panel, void* out) {
  const auto algorithm = static_cast<Algorithm>(header.algorithm);
  char* to = static_cast<char*>(out) + kPackedDataOffset + panel * panel_bytes(header);
  if (data_type(algorithm) == DataType::kFloat32) {
    Panel<float> filters(header, weights, strides, panel);
    if (parts_of(algorithm) > 0) return pack_parts_f32(header, filters, reinterpret_cast<BFloat16*>(to));
    auto* data = reinterpret_cast<float*>(to);
    switch (winograd_outputs(algorithm)) {
      case 2:
        return pack_winograd_f32<WinogradF2>(header, filters, data);
      case 4:
        return pack_winograd_f32<WinogradF4>(header, filters, data);
      default:
        return quad_blocks(header) > 0 ? pack_quads_f32(header, filters, data)
                                       : pack_direct_f32(header, filters, data);
    }
  }
  Panel<BFloat16> filters(header, weights, strides, panel);
  auto* data = reinterpret_cast<BFloat16*>(to);
  if (algorithm == Algorithm::kDirectBf16Dot) return pack_dot_bf16(header, filters, data);
  if (algorithm == Algorithm::kWinogradBf16Dot) return pack_winograd_bf16(header, filters, data);
  return merges_columns(header) ? pack_amx_merged_bf16(header, filters, data)
                                : pack_amx_bf16(header, filters, data);
}

}  // namespace fusedres::conv
