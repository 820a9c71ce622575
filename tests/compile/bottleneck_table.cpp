// Prints, as a Markdown table, how bottleneck_infer runs blocks of known networks by the shared memory that a
// block of threads may have.
#include <cstdio>

#include "cuda/bottleneck_infer.h"

using fusedres::cuda::BottleneckInferVariant;

namespace {

struct Block {
  const char* name;
  int channels, middle, outputs, stride;
  bool downsample;
};

constexpr Block kBlocks[] = {
    {"ResNet-50 `layer1.0`", 64, 64, 256, 1, true},
    {"ResNet-50 `layer1.1`, `.2`", 256, 64, 256, 1, false},
    {"ResNet-50 `layer2.0` (stride 2)", 256, 128, 512, 2, true},
    {"ResNet-50 `layer2.1` to `.3`", 512, 128, 512, 1, false},
    {"ResNet-50 `layer3.1` to `.5`", 1024, 256, 1024, 1, false},
    {"Wide ResNet-50-2 `layer1.0`", 64, 128, 256, 1, true},
    {"Wide ResNet-50-2 `layer1.1`, `.2`", 256, 128, 256, 1, false},
};
constexpr int kKilobytes[] = {99, 163, 227};

void print_cell(const Block& block, int shared_bytes) {
  const int variant = block.stride != 1
                          ? -1
                          : fusedres::cuda::bottleneck_variant(
                                block.channels, block.middle, block.outputs, block.downsample, shared_bytes);
  if (variant < 0) {
    std::printf(" a launch a convolution |");
    return;
  }
  const BottleneckInferVariant& chosen = fusedres::cuda::kBottleneckVariants[variant];
  std::printf(
      " one launch, weights %s, %.1f KB |", chosen.resident ? "resident" : "streamed",
      static_cast<double>(chosen.shared_bytes(block.channels, block.outputs)) / 1024);
}

}  // namespace

int main() {
  std::printf("| block |");
  for (const int kilobytes : kKilobytes) std::printf(" %d KB |", kilobytes);
  std::printf("\n|---|---|---|---|\n");
  for (const Block& block : kBlocks) {
    std::printf("| %s |", block.name);
    for (const int kilobytes : kKilobytes) print_cell(block, kilobytes * 1024);
    std::printf("\n");
  }
}
