#include "cuda/bottleneck_infer_launch.cuh"

namespace fusedres::cuda {

template void launch_bottleneck_infer<Half>(const BottleneckInferParams&, int, const Target&);

}  // namespace fusedres::cuda
