// fusedres_cuda::conv_wgrad
#include "cuda/conv_wgrad.h"

#include <algorithm>

#include "cuda/common/library.h"
#include "cuda/common/tensor.h"

namespace fusedres::cuda {
namespace {

constexpr const char* kOp = "conv_wgrad";
constexpr int64_t kLargest = 2147483647;
constexpr int64_t kMostPixels =
    kLargest - (int64_t{1} << 22);   // parts of whole stages may end beyond the last
constexpr int kStagePixels = 32;     // parts are whole stages of the kernel
constexpr int kFewestPixels = 256;   // a part's, for its share of the parts to be small beside its operands
constexpr int kReduceValues = 2048;  // see conv_wgrad_reduce_kernel
constexpr int64_t kMostOfGrid = 65535;  // in y and z
constexpr int kTensorCores = 80;        // whose instructions we write: compute capability 8.0

using Ints = std::vector<int64_t>;

struct Geometry {
  const Ints& w_shape;
  const Ints &stride, &padding, &dilation;
  int64_t groups;

  int64_t outputs() const { return w_shape[0]; }
  int64_t group_channels() const { return w_shape[1]; }
  int64_t taps() const { return w_shape[2] * w_shape[3]; }
  bool same_pixels() const {
    return taps() == 1 && stride[0] == 1 && stride[1] == 1 && padding[0] == 0 && padding[1] == 0;
  }
};

void check_geometry(const Tensor& x, const Tensor& dz, const Geometry& g) {
  STD_TORCH_CHECK(g.w_shape.size() == 4, kOp, ": `w_shape` must have 4 entries; got ", g.w_shape.size());
  STD_TORCH_CHECK(
      g.groups > 0 && x.size(1) == g.group_channels() * g.groups && g.outputs() % g.groups == 0, kOp,
      ": `groups` must divide the channels into those of `w_shape`, ", g.group_channels(), "; got ", g.groups,
      " groups of ", x.size(1), " channels and ", g.outputs(), " outputs");
  Ints expected{x.size(0), g.outputs(), 0, 0};
  for (int i = 0; i < 2; ++i) {
    STD_TORCH_CHECK(
        g.stride[i] > 0 && g.dilation[i] > 0 && g.padding[i] >= 0, kOp,
        ": `stride` and `dilation` must be positive and `padding` must not be negative; got ", g.stride[i],
        ", ", g.dilation[i], " and ", g.padding[i]);
    const int64_t reach = g.dilation[i] * (g.w_shape[2 + i] - 1) + 1;
    expected[2 + i] = (x.size(2 + i) + 2 * g.padding[i] - reach) / g.stride[i] + 1;
  }
  check_shape(kOp, "dz", dz, expected);
}

// A kernel numbers pixels and columns in 32 bits (offsets in bytes have 64).
bool numbers_fit(const Tensor& x, const Tensor& dz, const Geometry& g) {
  return rows_of(x) <= kLargest && rows_of(dz) <= kMostPixels && g.group_channels() * g.taps() <= kLargest &&
         g.groups <= kMostOfGrid;
}

struct Tile {
  int64_t outputs, columns;
  int blocks_a_processor;
};
constexpr Tile kTiles[] = {{128, 128, 2}, {64, 128, 2}, {64, 64, 4}, {64, 32, 2}};

// A 3 x 3 that keeps the size of a map whose rows are not too long for the ring, with channels to fill it.
bool ring_serves(const Tensor& x, const Geometry& g) {
  const Tile& tile = kTiles[static_cast<int>(WgradTile::kRing)];
  const bool same_size =
      g.w_shape[2] == 3 && g.w_shape[3] == 3 && g.stride == Ints{1, 1} && g.padding == g.dilation;
  return same_size && x.scalar_type() != ScalarType::Float &&
         g.padding[0] * x.size(3) + g.padding[1] <= kWgradMostHalo && g.group_channels() >= tile.columns &&
         g.outputs() / g.groups >= tile.outputs;
}

// The largest tile that leaves no more of itself empty than the smallest one would.
WgradTile choose_tile(int64_t group_outputs, int64_t columns, bool large) {
  const auto padded = [](int64_t size, int64_t tile) { return ceil_div(size, tile) * tile; };
  if (!large || padded(columns, 128) > padded(columns, 64)) return WgradTile::k64x64;
  return padded(group_outputs, 128) > padded(group_outputs, 64) ? WgradTile::k64x128 : WgradTile::k128x128;
}

// Parts of whole stages, so many that the device is full once.
void split_pixels(ConvWgradLaunch& call, const Tile& tile, const Target& target) {
  const int64_t pixels = call.params.pixels;
  const int64_t slots = int64_t{target.device.processors} * tile.blocks_a_processor;
  const int64_t blocks = int64_t{call.tiles} * call.groups;
  const int64_t most = std::min(std::max<int64_t>(pixels / kFewestPixels, 1), kMostOfGrid);
  const int64_t wanted = std::clamp<int64_t>(slots / blocks, 1, most);
  const int64_t part = ceil_div(ceil_div(pixels, wanted), int64_t{kStagePixels}) * kStagePixels;
  call.params.part_pixels = static_cast<int>(part);
  call.splits = static_cast<int>(ceil_div(pixels, part));
}

ConvWgradLaunch describe(const Tensor& x, const Tensor& dz, const Geometry& g, const Target& target) {
  auto narrow = [](int64_t value) { return static_cast<int>(value); };
  ConvWgradLaunch call{};
  ConvWgradParams& p = call.params;
  p.height = narrow(x.size(2)), p.width = narrow(x.size(3)), p.channels = narrow(x.size(1));
  p.outputs = narrow(g.outputs());
  p.taps_w = narrow(g.w_shape[3]);
  p.stride_h = narrow(g.stride[0]), p.stride_w = narrow(g.stride[1]);
  p.padding_h = narrow(g.padding[0]), p.padding_w = narrow(g.padding[1]);
  p.dilation_h = narrow(g.dilation[0]), p.dilation_w = narrow(g.dilation[1]);
  p.group_channels = narrow(g.group_channels()), p.group_outputs = narrow(g.outputs() / g.groups);
  p.columns = narrow(g.group_channels() * g.taps());
  p.pixels = narrow(rows_of(dz));
  p.out_width = FastDivision(static_cast<uint32_t>(dz.size(3)));
  p.out_pixels = FastDivision(static_cast<uint32_t>(dz.size(2) * dz.size(3)));

  const int chunk = x.scalar_type() == ScalarType::Float ? 4 : 8;
  p.whole_outputs = p.group_outputs % chunk == 0;
  call.whole_chunks = p.whole_outputs && p.group_channels % chunk == 0;
  call.same_pixels = g.same_pixels();
  call.groups = narrow(g.groups);
  const bool ring = call.whole_chunks && ring_serves(x, g);
  call.tile =
      ring ? WgradTile::kRing : choose_tile(p.group_outputs, p.columns, call.whole_chunks && chunk == 8);
  const Tile& tile = kTiles[static_cast<int>(call.tile)];
  p.tiles_k = narrow(ceil_div<int64_t>(p.group_outputs, tile.outputs));
  call.tiles = narrow(p.tiles_k * ceil_div<int64_t>(ring ? p.group_channels : p.columns, tile.columns));
  split_pixels(call, tile, target);
  return call;
}

// Channels last is the order of the parts: as one tap of so many channels.
ConvWgradReduceParams describe_reduce(
    const float* parts, void* dw, int splits, const Geometry& g, bool channels_last) {
  const int64_t taps = channels_last ? 1 : g.taps();
  const int64_t channels = channels_last ? g.taps() * g.group_channels() : g.group_channels();
  const int64_t tile_taps = std::min<int64_t>(taps, kReduceValues);
  const int64_t tile_channels = std::min(channels, kReduceValues / tile_taps);
  return {
      parts,
      dw,
      g.outputs() * taps * channels,
      splits,
      static_cast<int>(channels),
      static_cast<int>(taps),
      static_cast<int>(tile_channels),
      static_cast<int>(tile_taps),
      static_cast<int>(ceil_div(channels, tile_channels)),
      static_cast<int>(ceil_div(taps, tile_taps))};
}

Tensor conv_wgrad(
    const Tensor& x, const Tensor& dz, const OptionalTensor& in_s, const OptionalTensor& in_t,
    const OptionalTensor& y, const OptionalTensor& p, const OptionalTensor& q, const OptionalTensor& r,
    Ints w_shape, Ints stride, Ints padding, Ints dilation, int64_t groups, bool channels_last) {
  check_activation(kOp, "x", x);
  check_activation(kOp, "dz", dz);
  check_dtype(kOp, "dz", dz, x.scalar_type());
  check_device(kOp, "dz", dz, x);
  check_like(kOp, "y", y, dz);
  STD_TORCH_CHECK(
      y.has_value() == q.has_value() && q.has_value() == r.has_value() && (p.has_value() || !q.has_value()),
      kOp, ": `y`, `q` and `r` go together, with `p`; got y ", y.has_value(), ", p ", p.has_value(), ", q ",
      q.has_value(), ", r ", r.has_value());
  STD_TORCH_CHECK(in_s.has_value() == in_t.has_value(), kOp, ": `in_s` and `in_t` go together; got only one");
  const Geometry g{w_shape, stride, padding, dilation, groups};
  check_geometry(x, dz, g);
  const OnDevice device(kOp, x);
  if ((x.scalar_type() == ScalarType::Float && !allow_tf32()) || device.facts().capability < kTensorCores ||
      !numbers_fit(x, dz, g)) {
    return std::get<0>(call_library<Tensor>(
        kOp, x, dz, in_s, in_t, y, p, q, r, w_shape, stride, padding, dilation, groups, channels_last));
  }

  Tensor dw = channels_last ? empty_nhwc(x, w_shape, x.scalar_type()) : empty(x, w_shape, x.scalar_type());
  if (dw.numel() == 0) return dw;
  const Target target = device.target();
  const Tensor kept_x = aligned(x), kept_dz = aligned(dz);
  const OptionalTensor kept_y = y.has_value() ? OptionalTensor(aligned(*y)) : y;
  const ChannelVector vs(kOp, "in_s", in_s, x.size(1), x), vt(kOp, "in_t", in_t, x.size(1), x);
  const ChannelVector vp(kOp, "p", p, w_shape[0], x), vq(kOp, "q", q, w_shape[0], x),
      vr(kOp, "r", r, w_shape[0], x);
  dispatch_element(x, [&](auto element) {
    using T = decltype(element);
    if (rows_of(dz) == 0) {  // a sum of nothing
      const ConvWgradReduceParams none = describe_reduce(nullptr, dw.data_ptr(), 0, g, channels_last);
      return launch_conv_wgrad_reduce<T>(none, static_cast<int>(g.outputs()), target);
    }
    ConvWgradLaunch call = describe(x, dz, g, target);
    const Tensor parts = empty(x, {call.splits * dw.numel()});
    call.params.x = kept_x.data_ptr(), call.params.dz = kept_dz.data_ptr();
    call.params.y = data<T>(kept_y);
    call.params.in_s = vs.get(), call.params.in_t = vt.get();
    call.params.p = vp.get(), call.params.q = vq.get(), call.params.r = vr.get();
    call.params.parts = mutable_data<float>(parts);
    call.formed = in_s.has_value() ? WgradFormed::kBoth
                  : p.has_value()  ? WgradFormed::kGradient
                                   : WgradFormed::kNone;
    launch_conv_wgrad<T>(call, target);
    launch_conv_wgrad_reduce<T>(
        describe_reduce(data<float>(parts), dw.data_ptr(), call.splits, g, channels_last),
        static_cast<int>(g.outputs()), target);
  });
  return dw;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fusedres_cuda, CUDA, m) { m.impl("conv_wgrad", TORCH_BOX(&conv_wgrad)); }

}  // namespace fusedres::cuda
