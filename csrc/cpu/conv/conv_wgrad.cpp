// The engine's op fusedres_cpu::wgrad. Its schema stands in fusedres/backends/cpu/engine.py.
#include <cstring>
#include <string>
#include <vector>

#include "cpu/conv/engine_op.h"
#include "cpu/conv/memory.h"
#include "cpu/conv/support.h"
#include "cpu/conv/wgrad.h"
#include "cpu/conv/wgrad_bf16.h"
#include "cpu/tensor.h"

namespace fusedres::conv {
namespace {

void check(const Tensor& x, const Tensor& dy, const Filter& filter, Algorithm algorithm) {
  if (!can_run_wgrad(algorithm))
    fail("wgrad: this process cannot run algorithm " + std::to_string(static_cast<int32_t>(algorithm)));
  cpu::check_activation("wgrad", "x", x);
  cpu::check_activation("wgrad", "dy", dy);
  const ScalarType wanted =
      data_type(algorithm) == DataType::kFloat32 ? ScalarType::Float : ScalarType::BFloat16;
  if (x.scalar_type() != wanted || dy.scalar_type() != wanted)
    fail("wgrad: `x` and `dy` must have the dtype of the algorithm");
  if (algorithm == Algorithm::kWinogradF32 &&
      (filter.rows != 3 || filter.cols != 3 || filter.stride_h != 1 || filter.stride_w != 1))
    fail("wgrad: Winograd's F(2x2, 3x3) needs a 3 x 3 filter of stride 1");
  if (x.size(1) != filter.in_channels)
    fail(
        "wgrad: `x` must have the weight's " + std::to_string(filter.in_channels) + " channels; got " +
        std::to_string(x.size(1)));
  if (dy.size(0) != x.size(0) || dy.size(1) != filter.out_channels ||
      dy.size(2) != filter.out_height(x.size(2)) || dy.size(3) != filter.out_width(x.size(3)))
    fail(
        "wgrad: `dy` must have the shape of the convolution's output; got (" + std::to_string(dy.size(0)) +
        ", " + std::to_string(dy.size(1)) + ", " + std::to_string(dy.size(2)) + ", " +
        std::to_string(dy.size(3)) + ")");
}

template <class Task>
void run(const Task& task) {
  const int64_t parts = torch::stable::get_num_threads();
  char* scratch = scratch_memory(task.scratch_bytes(parts));
  torch::stable::parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part) task.run(part, parts, scratch);
  });
}

// in_scale and in_shift: x is taken as relu(x * in_scale + in_shift), or as it is.
Tensor wgrad(
    const Tensor& x, const Tensor& dy, OptionalTensor in_scale, OptionalTensor in_shift,
    std::vector<int64_t> w_shape, std::vector<int64_t> stride, std::vector<int64_t> padding,
    int64_t algorithm, bool channels_last) {
  const auto chosen = static_cast<Algorithm>(algorithm);
  const Filter filter = checked_filter("wgrad", w_shape, {stride, padding, kNoDilation, 1});
  check(x, dy, filter, chosen);
  if (in_scale.has_value() != in_shift.has_value())
    fail("wgrad: `in_scale` and `in_shift` go together; got only one");
  const cpu::ChannelVector scale("wgrad", "in_scale", in_scale, filter.in_channels);
  const cpu::ChannelVector shift("wgrad", "in_shift", in_shift, filter.in_channels);
  const DataType type = data_type(chosen);
  Tensor dw =
      channels_last ? cpu::empty_nhwc(x, w_shape, x.scalar_type()) : cpu::empty(x, w_shape, x.scalar_type());
  if (dw.numel() == 0) return dw;
  if (dy.numel() == 0) {
    std::memset(dw.data_ptr(), 0, dw.numel() * element_size(type));
    return dw;
  }
  const Activation activation{scale.get(), shift.get()};
  const Map in = map_of(x), gradient = map_of(dy);
  if (type == DataType::kBFloat16) {
    const WeightGradient<BFloat16> out(cpu::mutable_data<BFloat16>(dw), filter, channels_last);
    run(WgradBf16(kWgradBf16Amx, filter, in, activation, gradient, out));
  } else {
    const bool winograd = chosen == Algorithm::kWinogradF32;
    const WeightGradient<float> out(cpu::mutable_data<float>(dw), filter, channels_last);
    run(Wgrad(wgrad_kernels(), winograd, filter, in, activation, gradient, out));
  }
  return dw;
}

}  // namespace
}  // namespace fusedres::conv

STABLE_TORCH_LIBRARY_IMPL(fusedres_cpu, CPU, m) { m.impl("wgrad", TORCH_BOX(&fusedres::conv::wgrad)); }
