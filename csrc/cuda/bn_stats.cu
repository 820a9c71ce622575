#include "cuda/bn_stats_kernel.cuh"

namespace fusedres::cuda {
template <typename T>
Grid bn_stats_grid(int64_t rows, int64_t channels, bool aligned, const Target& target) {
  return row_grid(rows, channels, {values_of<T>(channels, aligned), kStatsRows, 2}, target);
}

template <typename T>
void launch_bn_stats(const BnStatsParams<T>& params, const Grid& grid, bool aligned, const Target& target) {
  const bool vectors = values_of<T>(params.channels, aligned) > 1;
  launch("bn_stats", vectors ? bn_stats_kernel<T, kVec<T>> : bn_stats_kernel<T, 1>, grid, target, params);
}

#define FUSEDRES_INSTANTIATE(T)                                          \
  template Grid bn_stats_grid<T>(int64_t, int64_t, bool, const Target&); \
  template void launch_bn_stats(const BnStatsParams<T>&, const Grid&, bool, const Target&);
FUSEDRES_INSTANTIATE(Half)
FUSEDRES_INSTANTIATE(BFloat16)
FUSEDRES_INSTANTIATE(float)
#undef FUSEDRES_INSTANTIATE

}  // namespace fusedres::cuda
