// fusedres_cpu::blocks_packed; its schema stands in fusedres/backends/cpu/engine.py.
#include "cpu/conv/block.h"
#include "cpu/conv/engine_op.h"

namespace fusedres::conv {
namespace {

constexpr const char* kOp = "blocks_packed";

// The convolutions of one block, beginning at `first` in the lists: 2 or 3 in order, then the downsample.
struct Operands {
  const std::vector<Tensor>&packed, &scales, &shifts;
  int64_t first, convs;
  bool downsample;
};

Tensor run_one(const Tensor& x, const Operands& operands, Team& team) {
  Block block;
  std::vector<PaddedAffine> affines;
  const int64_t count = operands.convs + (operands.downsample ? 1 : 0);
  affines.reserve(count);
  int64_t channels = x.size(1), height = x.size(2), width = x.size(3);
  const Filter* skip = nullptr;
  for (int64_t i = 0; i < count; ++i) {
    const Tensor& packed = operands.packed[operands.first + i];
    const PackedHeader& header = checked_header(kOp, "packed", packed);
    const bool branch = i == operands.convs;
    check_input(kOp, header, x);
    check_channels(kOp, "packed", header, branch ? x.size(1) : channels);
    affines.emplace_back(
        kOp, operands.scales[operands.first + i], operands.shifts[operands.first + i],
        header.filter.out_channels);
    (branch ? block.downsample : block.convs[i]) = {
        packed.data_ptr(), affines[i].scale(), affines[i].shift()};
    if (branch) {
      skip = &header.filter;
      break;
    }
    channels = header.filter.out_channels;
    height = header.filter.out_height(height);
    width = header.filter.out_width(width);
  }
  const bool fits = skip != nullptr
                        ? skip->out_channels == channels && skip->out_height(x.size(2)) == height &&
                              skip->out_width(x.size(3)) == width
                        : x.size(1) == channels && x.size(2) == height && x.size(3) == width;
  if (!fits) fail("blocks_packed: the two branches of the join must have one shape");
  Tensor out = new_output(x, channels, height, width);
  if (out.numel() > 0) run_block(block, map_of(x), map_of(out), team);
  return out;
}

// Blocks one after the other: of each the number of its convolutions in a row (`convs`) and in its skip
// (`downsamples`, 0 or 1). One call for a network's blocks does not go back to Python between them.
Tensor blocks_packed(
    const Tensor& x, std::vector<Tensor> packed, std::vector<Tensor> scales, std::vector<Tensor> shifts,
    std::vector<int64_t> convs, std::vector<int64_t> downsamples) {
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
  TorchTeam team;
  Tensor current = x;
  int64_t first = 0;
  for (size_t i = 0; i < convs.size(); ++i) {
    current = run_one(current, {packed, scales, shifts, first, convs[i], downsamples[i] == 1}, team);
    first += convs[i] + downsamples[i];
  }
  return current;
}

}  // namespace
}  // namespace fusedres::conv

STABLE_TORCH_LIBRARY_IMPL(fusedres_cpu, CPU, m) {
  m.impl("blocks_packed", TORCH_BOX(&fusedres::conv::blocks_packed));
}
