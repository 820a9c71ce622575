#include "cuda/affine_add_act_kernel.cuh"

namespace fusedres::cuda {
namespace {

template <typename T, int kN, Add kAdd>
void launch_with(const AffineAddActParams<T>& params, bool relu, const Target& target) {
  const Grid grid = row_grid(params.rows, params.channels, pointwise_layout(kN), target);
  launch(
      "affine_add_act",
      relu ? affine_add_act_kernel<T, kN, kAdd, true> : affine_add_act_kernel<T, kN, kAdd, false>, grid,
      target, params);
}

template <typename T, int kN>
void launch_vectors(const AffineAddActParams<T>& params, bool relu, const Target& target) {
  if (params.b == nullptr) return launch_with<T, kN, Add::kNone>(params, relu, target);
  if (params.sb == nullptr) return launch_with<T, kN, Add::kIdentity>(params, relu, target);
  launch_with<T, kN, Add::kAffine>(params, relu, target);
}

}  // namespace

template <typename T>
void launch_affine_add_act(
    const AffineAddActParams<T>& params, bool relu, bool aligned, const Target& target) {
  if (aligned && params.channels % kVec<T> == 0) return launch_vectors<T, kVec<T>>(params, relu, target);
  launch_vectors<T, 1>(params, relu, target);
}

template void launch_affine_add_act(const AffineAddActParams<Half>&, bool, bool, const Target&);
template void launch_affine_add_act(const AffineAddActParams<BFloat16>&, bool, bool, const Target&);
template void launch_affine_add_act(const AffineAddActParams<float>&, bool, bool, const Target&);

}  // namespace fusedres::cuda
