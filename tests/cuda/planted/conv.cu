// A 5 x 5 convolution by the implicit GEMM of csrc/cuda/conv, against plain loops.
#include "program.h"

// The planner, which is host code of its own.
#include "cuda/conv/launch.cuh"
#include "cuda/conv/patch.cpp"
#include "cuda/conv/plan.cpp"
#include "cuda/conv/shape.cpp"

using namespace fusedres;
using namespace fusedres::cuda;

namespace {

// 162 pixels and 24 channels: neither fills its last tile of 64.
constexpr int kN = 2, kC = 32, kSide = 9, kK = 24, kTaps = 5, kPadding = 2;

std::vector<BFloat16> values(size_t size) {
  std::vector<BFloat16> found(size);
  for (size_t i = 0; i < size; ++i) found[i] = from_float<BFloat16>(small_value(i));
  return found;
}

// NHWC and (K, R, S, C).
float expected(const std::vector<BFloat16>& x, const std::vector<BFloat16>& w, int n, int h, int v, int k) {
  float sum = 0.0f;
  for (int r = 0; r < kTaps; ++r) {
    for (int s = 0; s < kTaps; ++s) {
      const int row = h + r - kPadding, column = v + s - kPadding;
      if (row < 0 || row >= kSide || column < 0 || column >= kSide) continue;
      for (int c = 0; c < kC; ++c) {
        sum += to_float(x[((n * kSide + row) * kSide + column) * kC + c]) *
               to_float(w[((k * kTaps + r) * kTaps + s) * kC + c]);
      }
    }
  }
  return sum;
}

}  // namespace

int main() {
  const auto x = values(kN * kSide * kSide * kC), w = values(kK * kTaps * kTaps * kC);
  const DeviceArray<BFloat16> source(x), weight(w), out(kN * kSide * kSide * kK);
  const ConvShape shape{kN, kC, kSide, kSide, kK, kTaps, kTaps, {1, 1}, {kPadding, kPadding}, {1, 1}, 1};
  ConvPlan plan = plan_forward(shape, {sizeof(BFloat16), 1, false}, target().device);
  if (plan.kernel != ConvKernel::kTaps || plan.tile != ConvTile::k64x64 || plan.params.splits != 1) return 2;
  plan.params.source = source.data;
  plan.params.weight = weight.data;
  plan.params.out = out.data;
  const ConvFamily<BFloat16, Raw, AffineAct, WeightSource> family{"conv", plan, target()};
  family.gemm<Walk::kTaps, Tile64x64>();
  const auto found = out.values();
  size_t wrong = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    const int pixel = static_cast<int>(i) / kK, k = static_cast<int>(i) % kK;
    const float sum = expected(x, w, pixel / (kSide * kSide), pixel / kSide % kSide, pixel % kSide, k);
    wrong += to_float(found[i]) != to_float(from_float<BFloat16>(sum));
  }
  return verdict(wrong, found.size());
}
