// fusedres_cuda::bn_stats
#include "cuda/bn_stats.h"

#include <tuple>

#include "cuda/common/tensor.h"

namespace fusedres::cuda {
namespace {

std::tuple<Tensor, Tensor, Tensor> bn_stats(const Tensor& y) {
  constexpr const char* op = "bn_stats";
  check_activation(op, "y", y);
  const OnDevice device(op, y);
  const int64_t rows = rows_of(y), channels = y.size(1);
  const bool aligned = are_aligned(y.data_ptr());
  return dispatch_element(y, [&](auto element) -> std::tuple<Tensor, Tensor, Tensor> {
    using T = decltype(element);
    const Grid grid = bn_stats_grid<T>(rows, channels, aligned, device.target());
    const int64_t tiles = grid.blocks.x;
    Tensor count = empty(y, {tiles}), mean = empty(y, {tiles, channels}), m2 = empty(y, {tiles, channels});
    const BnStatsParams<T> params{
        data<T>(y), mutable_data<float>(count), mutable_data<float>(mean), mutable_data<float>(m2), rows,
        channels};
    launch_bn_stats(params, grid, aligned, device.target());
    return {count, mean, m2};
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fusedres_cuda, CUDA, m) { m.impl("bn_stats", TORCH_BOX(&bn_stats)); }

}  // namespace fusedres::cuda
