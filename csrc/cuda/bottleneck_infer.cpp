// fusedres_cuda::bottleneck_infer
#include "cuda/bottleneck_infer.h"

#include "cuda/common/library.h"
#include "cuda/conv/host.h"
#include "cuda/conv/weights.h"

namespace fusedres::cuda {
namespace {

constexpr const char* kOp = "bottleneck_infer";
constexpr int kTensorCores = 80;

Ints shape_of(const Tensor& x) { return {x.size(0), x.size(1), x.size(2), x.size(3)}; }

Ints checked_shape(
    const char* x_name, const Ints& x_shape, const Tensor& x, const Tensor& w, const ConvGeometry& g) {
  check_dtype(kOp, "w", w, x.scalar_type());
  check_device(kOp, "w", w, x);
  check_conv(kOp, x_name, x_shape, w, g);
  return conv_output_shape(x_shape, w, g);
}

void check_skip(const char* name, const Ints& got, const Ints& out) {
  STD_TORCH_CHECK(
      got == out, kOp, ": the branch of `", name, "` must have the block's output shape (", out[0], ", ",
      out[1], ", ", out[2], ", ", out[3], "); got (", got[0], ", ", got[1], ", ", got[2], ", ", got[3], ")");
}

// Tiles cover the map with pixels to spare. Computing those costs more than memory traffic saves where they
// are many: a bottleneck of stage 1 in one launch moves half the bytes of its three convolutions.
bool tiles_fit(const Tensor& x) {
  constexpr double kLeastUsed = 0.6;
  const int64_t rows = ceil_div<int64_t>(x.size(2), kBottleneckTile) * kBottleneckTile;
  const int64_t columns = ceil_div<int64_t>(x.size(3), kBottleneckTile) * kBottleneckTile;
  return static_cast<double>(x.size(2) * x.size(3)) >= kLeastUsed * static_cast<double>(rows * columns);
}

// The variant of the kernel that serves the call, or -1.
int choose_variant(
    const Tensor& x, const Tensor& w1, const Tensor& w3, bool downsample, const ConvGeometry& middle,
    const DeviceFacts& device) {
  const bool plain = middle.stride == Ints{1, 1} && middle.dilation == Ints{1, 1} && middle.groups == 1;
  const bool three_by_three = middle.padding == Ints{1, 1};
  if (x.scalar_type() == ScalarType::Float || device.capability < kTensorCores || !plain || !three_by_three ||
      rows_of(x) >= (int64_t{1} << 31) || !tiles_fit(x)) {
    return -1;
  }
  return bottleneck_variant(x.size(1), w1.size(0), w3.size(0), downsample, device.shared_bytes);
}

// The weight as rows of its taps and source channels on 16-byte addresses.
Tensor weight_rows(const Tensor& w, const Target& target) {
  if (lies_as_rows(w) && is_aligned(w.data_ptr())) return w;
  const int rows = static_cast<int>(w.size(0)), depth = static_cast<int>(w.size(1));
  const int taps_w = static_cast<int>(w.size(3)), taps = static_cast<int>(w.size(2)) * taps_w;
  Tensor packed = empty(w, {rows, taps, depth}, w.scalar_type());
  PackWeightsParams pack{};
  pack.weight = w.data_ptr(), pack.packed = packed.data_ptr();
  pack.stride_k = w.stride(0), pack.stride_c = w.stride(1);
  pack.stride_r = w.stride(2), pack.stride_s = w.stride(3);
  pack.rows = pack.block_rows = pack.group_rows = rows;
  pack.packed_depth = pack.block_depth = pack.group_depth = depth;
  pack.taps = taps, pack.taps_w = taps_w;
  dispatch_element(w, [&](auto element) { launch_pack_weights<decltype(element)>(pack, target); });
  return packed;
}

// A convolution of the block as the kernel reads it.
struct Part {
  Tensor weight;
  ChannelVector scale, shift;

  Part(
      const char* scale_name, const char* shift_name, const Tensor& w, const OptionalTensor& s,
      const OptionalTensor& t, const Tensor& x, const Target& target)
      : weight(weight_rows(w, target)),
        scale(kOp, scale_name, s, w.size(0), x),
        shift(kOp, shift_name, t, w.size(0), x) {}
};

BottleneckInferParams describe(const Tensor& x, const Tensor& out) {
  BottleneckInferParams p{};
  p.x = x.data_ptr(), p.out = out.data_ptr();
  p.height = static_cast<int>(x.size(2)), p.width = static_cast<int>(x.size(3));
  p.channels = static_cast<int>(x.size(1)), p.outputs = static_cast<int>(out.size(1));
  p.tiles_h = ceil_div(p.height, kBottleneckTile), p.tiles_w = ceil_div(p.width, kBottleneckTile);
  p.tiles = static_cast<int>(x.size(0)) * p.tiles_h * p.tiles_w;
  return p;
}

Tensor bottleneck_infer(
    const Tensor& x, const Tensor& w1, const Tensor& s1, const Tensor& t1, const Tensor& w2, const Tensor& s2,
    const Tensor& t2, const Tensor& w3, const Tensor& s3, const Tensor& t3, const OptionalTensor& wd,
    const OptionalTensor& sd, const OptionalTensor& td, Ints stride, Ints dilation, int64_t groups) {
  check_activation(kOp, "x", x);
  const Ints unit{1, 1}, none{0, 0};
  const ConvGeometry one{unit, none, unit, 1}, middle{stride, dilation, dilation, groups};
  const Ints inner_shape = checked_shape("x", shape_of(x), x, w1, one);
  const Ints middle_shape = checked_shape("w1's output", inner_shape, x, w2, middle);
  const Ints out_shape = checked_shape("w2's output", middle_shape, x, w3, one);
  STD_TORCH_CHECK(
      wd.has_value() == sd.has_value() && sd.has_value() == td.has_value(), kOp,
      ": `wd`, `sd` and `td` go together; got wd ", wd.has_value(), ", sd ", sd.has_value(), ", td ",
      td.has_value());
  if (wd.has_value()) {
    check_skip("wd", checked_shape("x", shape_of(x), x, *wd, {stride, none, unit, 1}), out_shape);
  } else {
    check_skip("x", shape_of(x), out_shape);
  }
  const OnDevice device(kOp, x);
  const Target& target = device.target();
  const int variant = w2.size(2) == 3 && w2.size(3) == 3
                          ? choose_variant(x, w1, w3, wd.has_value(), middle, target.device)
                          : -1;
  const auto composed = [&] {
    return std::get<0>(call_library<Tensor>(
        kOp, x, w1, s1, t1, w2, s2, t2, w3, s3, t3, wd, sd, td, stride, dilation, groups));
  };
  if (variant < 0) return composed();
  const Part first("s1", "t1", w1, s1, t1, x, target), second("s2", "t2", w2, s2, t2, x, target);
  const Part third("s3", "t3", w3, s3, t3, x, target);
  const Part skip("sd", "td", wd.has_value() ? *wd : w3, sd, td, x, target);
  const Tensor source = aligned(x);
  Tensor out = empty_nhwc(x, out_shape, x.scalar_type());
  BottleneckInferParams p = describe(source, out);
  p.w1 = first.weight.data_ptr(), p.s1 = first.scale.get(), p.t1 = first.shift.get();
  p.w2 = second.weight.data_ptr(), p.s2 = second.scale.get(), p.t2 = second.shift.get();
  p.w3 = third.weight.data_ptr(), p.s3 = third.scale.get(), p.t3 = third.shift.get();
  p.wd = skip.weight.data_ptr(), p.sd = skip.scale.get(), p.td = skip.shift.get();
  if (!are_aligned(p.s1, p.t1, p.s2, p.t2, p.s3, p.t3, p.sd, p.td)) return composed();
  if (x.scalar_type() == ScalarType::Half) {
    launch_bottleneck_infer<Half>(p, variant, target);
  } else {
    launch_bottleneck_infer<BFloat16>(p, variant, target);
  }
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fusedres_cuda, CUDA, m) {
  m.impl("bottleneck_infer", TORCH_BOX(&bottleneck_infer));
}

}  // namespace fusedres::cuda
