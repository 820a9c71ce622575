// torch's own convolutions, for what ours do not serve: exact fp32, compute capability 7.5, odd geometries.
// `fusedres/backends/cuda/library.py` composes them with our pointwise kernels, as ops with the schemas of
// the kernels that ask; these are reached through the dispatcher.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/stableivalue_conversions.h>

#include <array>
#include <string>
#include <tuple>
#include <utility>

namespace fusedres::cuda {

template <typename... Outputs, size_t... kAt>
std::tuple<Outputs...> unpacked(StableIValue* stack, std::index_sequence<kAt...>) {
  return {torch::stable::detail::to<Outputs>(stack[kAt])...};
}

// fusedres_cuda_library::`op`(arguments...), in the order of the schema, none left out.
template <typename... Outputs, typename... Arguments>
std::tuple<Outputs...> call_library(const char* op, const Arguments&... arguments) {
  constexpr size_t kSlots =
      sizeof...(Outputs) > sizeof...(Arguments) ? sizeof...(Outputs) : sizeof...(Arguments);
  std::array<StableIValue, kSlots> stack{torch::stable::detail::from(arguments)...};
  const std::string name = std::string("fusedres_cuda_library::") + op;
  STABLE_TORCH_ERROR_CODE_CHECK(torch_call_dispatcher(name.c_str(), "", stack.data(), TORCH_ABI_VERSION));
  return unpacked<Outputs...>(stack.data(), std::index_sequence_for<Outputs...>{});
}

// torch.backends.cudnn.allow_tf32: whether products of fp32 values may be rounded to TF32.
inline bool allow_tf32() { return std::get<0>(call_library<bool>("allow_tf32")); }

}  // namespace fusedres::cuda
