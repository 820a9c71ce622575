// fusedres_cpu::affine_act_maxpool, ::affine_act_maxpool_bwd
#include <tuple>

#include "cpu/bwd_sums.h"
#include "cpu/kernels/params.h"

namespace fusedres::cpu {
namespace {

std::tuple<Tensor, Tensor> affine_act_maxpool(const Tensor& y, const Tensor& s, const Tensor& t) {
  constexpr const char* op = "affine_act_maxpool";
  check_activation(op, "y", y);
  const int64_t channels = y.size(1), height = pooled(y.size(2)), width = pooled(y.size(3));
  const ChannelVector vs(op, "s", s, channels), vt(op, "t", t, channels);
  Tensor out = empty_nhwc(y, {y.size(0), channels, height, width}, y.scalar_type());
  Tensor index = empty_nhwc(y, {y.size(0), channels, height, width}, ScalarType::Byte);
  dispatch_element(y, [&](auto element) {
    using T = decltype(element);
    const AffineActMaxpool<T> params{data<T>(y),
                                     vs.get(),
                                     vt.get(),
                                     mutable_data<T>(out),
                                     mutable_data<uint8_t>(index),
                                     y.size(2),
                                     y.size(3),
                                     height,
                                     width,
                                     channels};
    parallel(y.size(0) * height, width * channels, [&](int64_t begin, int64_t end) {
      kernels().of<T>().affine_act_maxpool(params, begin, end);
    });
  });
  return {out, index};
}

std::tuple<Tensor, Tensor> affine_act_maxpool_bwd(
    const Tensor& dout, const Tensor& index, const Tensor& y, const Tensor& s, const Tensor& t,
    const Tensor& mean, const Tensor& invstd) {
  constexpr const char* op = "affine_act_maxpool_bwd";
  check_activation(op, "y", y);
  check_activation(op, "dout", dout);
  const int64_t channels = y.size(1), height = pooled(y.size(2)), width = pooled(y.size(3));
  for (const Tensor* x : {&dout, &index}) {
    STD_TORCH_CHECK(
        x->dim() == 4 && x->size(0) == y.size(0) && x->size(1) == channels && x->size(2) == height &&
            x->size(3) == width,
        op, ": `dout` and `index` must have the pooled shape (", y.size(0), ", ", channels, ", ", height,
        ", ", width, "); got ", x->numel(), " values");
  }
  STD_TORCH_CHECK(
      index.scalar_type() == ScalarType::Byte, op, ": `index` must be uint8; got ",
      torch::headeronly::toString(index.scalar_type()));
  STD_TORCH_CHECK(
      dout.scalar_type() == y.scalar_type(), op, ": `dout` must have the dtype of `y`; got ",
      torch::headeronly::toString(dout.scalar_type()));
  const ChannelVector vs(op, "s", s, channels), vt(op, "t", t, channels);
  const ChannelVector vmean(op, "mean", mean, channels), vinvstd(op, "invstd", invstd, channels);
  Tensor dz = empty_as(y);
  const int64_t image_rows = y.size(0) * y.size(2), row_values = y.size(3) * channels;
  const Chunks chunks(image_rows, row_values);
  std::vector<double> partial(chunks.count * 3 * channels);
  dispatch_element(y, [&](auto element) {
    using T = decltype(element);
    const AffineActMaxpoolBwd<T> params{
        data<T>(dout),
        data<T>(y),
        data<uint8_t>(index),
        vs.get(),
        vt.get(),
        vmean.get(),
        mutable_data<T>(dz),
        partial.data(),
        image_rows,
        y.size(2),
        y.size(3),
        height,
        width,
        channels,
        chunks.rows,
        streams(dz)};
    parallel(chunks.count, chunks.rows * row_values, [&](int64_t begin, int64_t end) {
      kernels().of<T>().affine_act_maxpool_bwd(params, begin, end);
    });
  });
  return {dz, merge_sums(partial, y, chunks.count, channels, 1, vinvstd.get())};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fusedres_cpu, CPU, m) {
  m.impl("affine_act_maxpool", TORCH_BOX(&affine_act_maxpool));
  m.impl("affine_act_maxpool_bwd", TORCH_BOX(&affine_act_maxpool_bwd));
}

}  // namespace fusedres::cpu
