// fusedres_cpu::blocks_packed; its schema stands in fusedres/backends/cpu/engine.py.
#include "cpu/conv/block.h"
#include "cpu/conv/engine_op.h"
#include "cpu/conv/support.h"

namespace fusedres::conv {
namespace {

constexpr const char* kOp = "blocks_packed";

// The operands of all blocks, one after the other: of each 2 or 3 convolutions in order, then the downsample.
struct Operands {
  const std::vector<Tensor>&packed, &scales, &shifts;
};

// Blocks in the order in which they run, and the sizes of their outputs.
struct Chain {
  std::vector<PaddedAffine> affines;
  std::vector<Block> blocks;
  std::vector<Map> outs;

  // Adds the block whose operands begin at `first`, on inputs like `in`.
  void add(
      const Operands& operands, size_t first, int64_t convs, bool downsample, bool rounds, const Map& in,
      int64_t element) {
    Block block;
    block.rounds = rounds;
    int64_t channels = in.channels, height = in.height, width = in.width;
    for (int64_t i = 0; i < convs; ++i) {
      const Filter& filter = put(operands, first + i, channels, block.convs[i]);
      channels = filter.out_channels;
      height = filter.out_height(height);
      width = filter.out_width(width);
      check_pixels(kOp, height, width);
    }
    bool fits = in.channels == channels && in.height == height && in.width == width;
    if (downsample) {
      const Filter& skip = put(operands, first + convs, in.channels, block.downsample);
      fits = skip.out_channels == channels && skip.out_height(in.height) == height &&
             skip.out_width(in.width) == width;
    }
    if (!fits) fail("blocks_packed: the two branches of the join must have one shape");
    blocks.push_back(block);
    outs.push_back(dense_map(nullptr, in.images, height, width, channels, element));
  }

 private:
  const Filter& put(const Operands& operands, size_t i, int64_t channels, BlockConv& conv) {
    const PackedHeader& header = checked_header(kOp, "packed", operands.packed[i]);
    check_channels(kOp, "packed", header, channels);
    affines.emplace_back(kOp, operands.scales[i], operands.shifts[i], header.filter.out_channels);
    conv = {operands.packed[i].data_ptr(), affines.back().scale(), affines.back().shift()};
    return header.filter;
  }
};

// Blocks one after the other: of each the number of its convolutions in a row (`convs`) and in its skip
// (`downsamples`, 0 or 1). One call for a network's blocks does not go back to Python between them. `rounds`:
// each block's output, of fp32, to bf16's values, as if it had been stored in bf16 and widened again.
Tensor blocks_packed(
    const Tensor& x, std::vector<Tensor> packed, std::vector<Tensor> scales, std::vector<Tensor> shifts,
    std::vector<int64_t> convs, std::vector<int64_t> downsamples, bool rounds) {
  if (convs.empty() || convs.size() != downsamples.size())
    fail("blocks_packed: needs a block at least, and as many `downsamples` as `convs`");
  size_t count = 0;
  for (size_t i = 0; i < convs.size(); ++i) {
    if (convs[i] < 2 || convs[i] > 3 || downsamples[i] < 0 || downsamples[i] > 1)
      fail(
          "blocks_packed: a block has 2 or 3 convolutions and 0 or 1 downsamples; got " +
          std::to_string(convs[i]) + " and " + std::to_string(downsamples[i]));
    count += convs[i] + downsamples[i];
  }
  if (packed.size() != count || scales.size() != count || shifts.size() != count)
    fail(
        "blocks_packed: needs as many `packed`, `scales` and `shifts` as convolutions; got " +
        std::to_string(packed.size()) + ", " + std::to_string(scales.size()) + " and " +
        std::to_string(shifts.size()) + " for " + std::to_string(count));
  if (rounds && x.scalar_type() != ScalarType::Float)
    fail(
        std::string("blocks_packed: `rounds` needs `x` in float32; got ") +
        torch::headeronly::toString(x.scalar_type()));
  const int64_t element = x.scalar_type() == ScalarType::Float ? 4 : 2;
  for (const Tensor& weights : packed) {
    const PackedHeader& header = checked_header(kOp, "packed", weights);
    check_input(kOp, header, x);
    if (rounds && !tiles_of(header).can_round)
      fail(
          "blocks_packed: `rounds` needs weights for fp32's tiles of AVX2 or the portable ones; got "
          "algorithm " +
          std::to_string(header.algorithm));
  }
  Chain chain;
  chain.affines.reserve(count);
  Map in = map_of(x);
  size_t first = 0;
  for (size_t i = 0; i < convs.size(); ++i) {
    chain.add({packed, scales, shifts}, first, convs[i], downsamples[i] == 1, rounds, in, element);
    in = chain.outs.back();
    first += convs[i] + downsamples[i];
  }
  const auto output = [&](size_t i) {
    return new_output(x, chain.outs[i].channels, chain.outs[i].height, chain.outs[i].width);
  };
  const size_t last = convs.size() - 1;
  if (x.numel() == 0 || chain.outs[last].image == 0) return output(last);
  TorchTeam team;
  Tensor current = x;
  for (size_t i = 0; i <= last;) {
    const size_t end = i + blocks_at_once(chain.blocks, i, map_of(x), chain.outs, team.size);
    const bool in_place = i > 0 && end == i + 1 && downsamples[i] == 0;  // nobody else has seen `current`
    Tensor out = in_place ? current : output(end - 1);
    std::vector<Map> outs(chain.outs.begin() + i, chain.outs.begin() + end);
    outs.back() = map_of(out);
    run_blocks({chain.blocks.begin() + i, chain.blocks.begin() + end}, map_of(current), outs, team);
    current = out;
    i = end;
  }
  return current;
}

}  // namespace
}  // namespace fusedres::conv

STABLE_TORCH_LIBRARY_IMPL(fusedres_cpu, CPU, m) {
  m.impl("blocks_packed", TORCH_BOX(&fusedres::conv::blocks_packed));
}
