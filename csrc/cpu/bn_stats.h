// Statistics of an activation, chunk by chunk.
#pragma once

#include "cpu/chunked_pass.h"

namespace fusedres::cpu {

// count (T), mean (T, C) and m2 (T, C) of the T chunks of `y`, which must outlive it.
struct StatsPass {
  explicit StatsPass(const Tensor& y);
  StatsPass(const StatsPass&) = delete;

  Tensor count, mean, m2;
  ChunkedPass pass;
};

}  // namespace fusedres::cpu
