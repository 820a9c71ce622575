// A residual block in one call: two or three convolutions, the downsample, the join.
#pragma once

#include "cpu/conv/task.h"
#include "cpu/conv/team.h"

namespace fusedres::conv {

struct BlockConv {
  const void* packed = nullptr;  // null: absent
  const float* scale = nullptr;
  const float* shift = nullptr;
};

struct Block {
  BlockConv convs[3];  // in order; the third is absent in a basic block
  BlockConv downsample;
  bool rounds = false;  // the output, of fp32, to bf16's values
};

// relu?(conv(in) * scale + shift + residual?); residual.data may be null.
void run_conv(
    const void* packed, const Epilogue& epilogue, const Map& in, const Map& residual, const Map& out,
    Team& team, const Watcher& watcher = {});

// `in` and `out` are dense and do not overlap; or they are one, and there is no downsample: each tile of the
// last convolution reads its residual before it writes there, and the first one has read all its input.
void run_block(const Block& block, const Map& in, const Map& out, Team& team);

// Blocks one after the other. Of `outs` only the last has memory: of the others the sizes count, those maps
// stay inside. Fewer images than threads go through in one parallel region, others a few at a time on each
// thread; so what lies between blocks is never there for more images than that.
void run_blocks(const std::vector<Block>& blocks, const Map& in, const std::vector<Map>& outs, Team& team);

// How many blocks one call of run_blocks should do, from `first` on: those that images are carried through,
// or one whose images go together. `in` is the input of blocks[0], `outs` are all blocks' outputs.
size_t blocks_at_once(
    const std::vector<Block>& blocks, size_t first, const Map& in, const std::vector<Map>& outs,
    int64_t threads);

}  // namespace fusedres::conv
