#include "cuda/conv/weights_kernel.cuh"

namespace fusedres::cuda {

template <typename T>
void launch_pack_weights(const PackWeightsParams& params, const Target& target) {
  const Grid grid{
      dim3(
          static_cast<unsigned>(ceil_div(params.rows, kPackTile)),
          static_cast<unsigned>(ceil_div(params.packed_depth, kPackTile)),
          static_cast<unsigned>(params.taps)),
      dim3(kPackTile, kPackLines)};
  launch("pack_weights", pack_weights_kernel<T>, grid, target, params);
}

template void launch_pack_weights<Half>(const PackWeightsParams&, const Target&);
template void launch_pack_weights<BFloat16>(const PackWeightsParams&, const Target&);
template void launch_pack_weights<float>(const PackWeightsParams&, const Target&);

}  // namespace fusedres::cuda
