// A residual block in one call: two or three convolutions, the downsample, the join.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/conv/task.h"

namespace fusedres::conv {

struct BlockConv {
  const void* packed = nullptr;  // null: absent
  const float* scale = nullptr;
  const float* shift = nullptr;
};

struct Block {
  BlockConv convs[3];  // in order; the third is absent in a basic block
  BlockConv downsample;
};

// The threads of a call: runs work(part) for every part in [0, size), at once where it can.
class Team {
 public:
  explicit Team(int64_t size) : size(size) {}
  virtual ~Team() = default;
  template <class Work>
  void each(const Work& work) {
    run([](const void* context, int64_t part) { (*static_cast<const Work*>(context))(part); }, &work);
  }
  const int64_t size;

 protected:
  virtual void run(void (*work)(const void* context, int64_t part), const void* context) = 0;
};

// relu?(conv(in) * scale + shift + residual?); residual.data may be null.
void run_conv(
    const void* packed, const Epilogue& epilogue, const Map& in, const Map& residual, const Map& out,
    Team& team, const Watcher& watcher = {});

// `in` and `out` are dense and do not overlap.
void run_block(const Block& block, const Map& in, const Map& out, Team& team);

}  // namespace fusedres::conv
