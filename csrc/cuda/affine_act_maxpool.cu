#include "cuda/affine_act_maxpool_bwd_kernel.cuh"

namespace fusedres::cuda {
namespace {

int64_t items_of(const PoolShape& shape) {
  return shape.images * shape.pooled_height * pool_segments(shape.pooled_width);
}

}  // namespace

template <typename T>
void launch_affine_act_maxpool(const AffineActMaxpoolParams<T>& params, bool aligned, const Target& target) {
  const int values = values_of<T>(params.shape.channels, aligned);
  const auto kernel = values > 1 ? affine_act_maxpool_kernel<T, kVec<T>> : affine_act_maxpool_kernel<T, 1>;
  // Windows share rows, too: few blocks at once read what L2 still has.
  const Grid grid = row_grid(items_of(params.shape), params.shape.channels, {values, 1, 4}, target);
  launch("affine_act_maxpool", kernel, grid, target, params);
}

template <typename T>
Grid affine_act_maxpool_bwd_grid(const PoolShape& shape, bool aligned, const Target& target) {
  return row_grid(items_of(shape), shape.channels, {values_of<T>(shape.channels, aligned), 1, 2}, target);
}

template <typename T>
void launch_affine_act_maxpool_bwd(
    const AffineActMaxpoolBwdParams<T>& params, const Grid& grid, bool aligned, const Target& target) {
  const bool vectors = values_of<T>(params.shape.channels, aligned) > 1;
  const auto kernel =
      vectors ? affine_act_maxpool_bwd_kernel<T, kVec<T>> : affine_act_maxpool_bwd_kernel<T, 1>;
  launch("affine_act_maxpool_bwd", kernel, grid, target, params);
}

#define FUSEDRES_INSTANTIATE(T)                                                                   \
  template void launch_affine_act_maxpool(const AffineActMaxpoolParams<T>&, bool, const Target&); \
  template Grid affine_act_maxpool_bwd_grid<T>(const PoolShape&, bool, const Target&);            \
  template void launch_affine_act_maxpool_bwd(                                                    \
      const AffineActMaxpoolBwdParams<T>&, const Grid&, bool, const Target&);
FUSEDRES_INSTANTIATE(Half)
FUSEDRES_INSTANTIATE(BFloat16)
FUSEDRES_INSTANTIATE(float)
#undef FUSEDRES_INSTANTIATE

}  // namespace fusedres::cuda
