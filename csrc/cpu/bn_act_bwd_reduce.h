// BatchNorm's backward reductions, chunk by chunk.
#pragma once

#include <vector>

#include "cpu/chunked_pass.h"

namespace fusedres::cpu {

// The operands of bn_act_bwd_reduce; see fusedres/ops/bn_act_bwd_reduce.py.
struct ReduceOperands {
  OptionalTensor out, y, s, t, mean, invstd, y2, mean2, invstd2;
};

// dz = dout where the activation was positive, and the sums. `dout` and `dz`, which may be one, must outlive
// it.
class ReducePass {
 public:
  ReducePass(const char* op, const Tensor& dout, const ReduceOperands& operands, const Tensor& dz);
  ReducePass(const ReducePass&) = delete;

  // Whether dz differs from dout.
  static bool masks(const ReduceOperands& operands) {
    return operands.out.has_value() || operands.s.has_value();
  }
  const ChunkedPass& pass() const { return pass_; }
  // (2, C): the sums of dz and of dz * x_hat, of the first branch or of the second. When all chunks are done.
  Tensor sums() const;
  Tensor sums2() const;

 private:
  const ReduceOperands operands_;
  const Tensor like_;
  const ChannelVector s_, t_, mean_, invstd_, mean2_, invstd2_;
  std::vector<double> partial_;
  ChunkedPass pass_;
};

}  // namespace fusedres::cpu
