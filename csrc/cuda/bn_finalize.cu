#include <algorithm>

#include "cuda/bn_finalize_kernel.cuh"

namespace fusedres::cuda {
namespace {

template <int kN>
void launch_values(const BnFinalizeParams& params, const Target& target) {
  const int width = kFinalizeChannels / kN;
  const int height = static_cast<int>(std::clamp<int64_t>(params.tiles, 1, kFinalizeHeight * kN / 4));
  const Grid grid{
      dim3(static_cast<unsigned>(ceil_div<int64_t>(params.channels, kFinalizeChannels))),
      dim3(static_cast<unsigned>(width), static_cast<unsigned>(height)),
      static_cast<int>(sizeof(Moments<kN>)) * width * height};
  launch("bn_finalize", bn_finalize_kernel<kN>, grid, target, params);
}

}  // namespace

void launch_bn_finalize(const BnFinalizeParams& params, bool aligned, const Target& target) {
  aligned&& params.channels % 4 == 0 ? launch_values<4>(params, target) : launch_values<1>(params, target);
}

}  // namespace fusedres::cuda
