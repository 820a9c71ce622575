// fusedres_cuda::affine_act_maxpool, ::affine_act_maxpool_bwd
#include "cuda/affine_act_maxpool.h"

#include <tuple>

#include "cuda/common/tensor.h"

namespace fusedres::cuda {
namespace {

// of a 3 x 3 window, stride 2, padding 1
int64_t pooled(int64_t size) { return (size - 1) / 2 + 1; }

PoolShape pool_shape(const Tensor& y) {
  return {y.size(0), y.size(2), y.size(3), pooled(y.size(2)), pooled(y.size(3)), y.size(1)};
}

std::vector<int64_t> pooled_sizes(const PoolShape& shape) {
  return {shape.images, shape.channels, shape.pooled_height, shape.pooled_width};
}

std::tuple<Tensor, Tensor> affine_act_maxpool(const Tensor& y, const Tensor& s, const Tensor& t) {
  constexpr const char* op = "affine_act_maxpool";
  check_activation(op, "y", y);
  const OnDevice device(op, y);
  const PoolShape shape = pool_shape(y);
  const ChannelVector vs(op, "s", s, shape.channels, y), vt(op, "t", t, shape.channels, y);
  Tensor out = empty_nhwc(y, pooled_sizes(shape), y.scalar_type());
  Tensor index = empty_nhwc(y, pooled_sizes(shape), ScalarType::Byte);
  dispatch_element(y, [&](auto element) {
    using T = decltype(element);
    const AffineActMaxpoolParams<T> k{
        data<T>(y), vs.get(), vt.get(), mutable_data<T>(out), mutable_data<uint8_t>(index), shape};
    launch_affine_act_maxpool(k, are_aligned(k.y, k.s, k.t), device.target());
  });
  return {out, index};
}

std::tuple<Tensor, Tensor> affine_act_maxpool_bwd(
    const Tensor& dout, const Tensor& index, const Tensor& y, const Tensor& s, const Tensor& t,
    const Tensor& mean, const Tensor& invstd) {
  constexpr const char* op = "affine_act_maxpool_bwd";
  check_activation(op, "y", y);
  const PoolShape shape = pool_shape(y);
  check_activation(op, "dout", dout);
  check_dtype(op, "dout", dout, y.scalar_type());
  check_dtype(op, "index", index, ScalarType::Byte);
  check_channels_last(op, "index", index);
  for (const auto& [name, x] : {std::pair("dout", &dout), std::pair("index", &index)}) {
    check_device(op, name, *x, y);
    check_shape(op, name, *x, pooled_sizes(shape));
  }
  const OnDevice device(op, y);
  const ChannelVector vs(op, "s", s, shape.channels, y), vt(op, "t", t, shape.channels, y);
  const ChannelVector vmean(op, "mean", mean, shape.channels, y),
      vinvstd(op, "invstd", invstd, shape.channels, y);
  Tensor dz = empty_as(y);
  return dispatch_element(y, [&](auto element) {
    using T = decltype(element);
    AffineActMaxpoolBwdParams<T> k{data<T>(dout), data<T>(y),    data<uint8_t>(index), vs.get(), vt.get(),
                                   vmean.get(),   vinvstd.get(), mutable_data<T>(dz),  nullptr,  shape};
    const bool aligned = are_aligned(k.dout, k.y, k.index, k.s, k.t, k.mean);
    const Grid grid = affine_act_maxpool_bwd_grid<T>(shape, aligned, device.target());
    Tensor sums = empty(y, {2 * static_cast<int64_t>(grid.blocks.x), shape.channels});
    k.sums = mutable_data<float>(sums);
    launch_affine_act_maxpool_bwd(k, grid, aligned, device.target());
    return std::tuple(dz, sums);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fusedres_cuda, CUDA, m) {
  m.impl("affine_act_maxpool", TORCH_BOX(&affine_act_maxpool));
  m.impl("affine_act_maxpool_bwd", TORCH_BOX(&affine_act_maxpool_bwd));
}

}  // namespace fusedres::cuda
