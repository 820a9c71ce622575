// fusedres_cpu::pool_usage; its schema stands in fusedres/backends/cpu/pool.py.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "cpu/pool.h"

namespace fusedres {
namespace {

std::tuple<int64_t, int64_t, int64_t> pool_usage() {
  const Pool::Usage usage = output_pool().usage();
  return {usage.taken, usage.reached, usage.bound};
}

}  // namespace
}  // namespace fusedres

STABLE_TORCH_LIBRARY_IMPL(fusedres_cpu, CompositeExplicitAutograd, m) {
  m.impl("pool_usage", TORCH_BOX(&fusedres::pool_usage));
}
