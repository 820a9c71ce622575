// The engine's ops: fusedres_cpu::conv_engine_runs, conv_engine_isa, conv_pack, conv_packed and their kin.
// Their schemas stand in fusedres/backends/cpu/engine.py.
#include <cstring>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "cpu/bn_act_bwd_reduce.h"
#include "cpu/bn_stats.h"
#include "cpu/conv/block.h"
#include "cpu/conv/engine_op.h"
#include "cpu/conv/memory.h"
#include "cpu/conv/packed.h"
#include "cpu/conv/support.h"
#include "cpu/pages.h"
#include "cpu/tensor.h"

namespace fusedres::conv {
namespace {

bool conv_engine_runs(int64_t algorithm) {
  return algorithm >= 0 && algorithm < kAlgorithms && can_run(static_cast<Algorithm>(algorithm));
}

int64_t conv_engine_isa(int64_t algorithm) {
  if (!conv_engine_runs(algorithm))
    fail("conv_engine_isa: this process cannot run algorithm " + std::to_string(algorithm));
  return static_cast<int64_t>(tile_isa(static_cast<Algorithm>(algorithm)));
}

// The header of `w` packed for `algorithm`; throws where the algorithm does not take it.
PackedHeader header_for(
    const char* op, const Tensor& w, const std::vector<int64_t>& stride, const std::vector<int64_t>& padding,
    int64_t algorithm, const std::vector<int64_t>& dilation = {1, 1}, int64_t groups = 1) {
  if (!conv_engine_runs(algorithm))
    fail(std::string(op) + ": this process cannot run algorithm " + std::to_string(algorithm));
  const auto chosen = static_cast<Algorithm>(algorithm);
  const bool bf16 = data_type(chosen) == DataType::kBFloat16;
  if (w.dim() != 4 || w.scalar_type() != (bf16 ? ScalarType::BFloat16 : ScalarType::Float))
    fail(std::string(op) + ": `w` must have 4 dimensions (K, C / groups, R, S) and the algorithm's dtype");
  if (w.size(1) < 1) fail(std::string(op) + ": `w` must have input channels; got none");
  if (groups < 1 || w.size(0) % groups != 0)
    fail(
        std::string(op) + ": `groups` must divide `w`'s " + std::to_string(w.size(0)) + " filters; got " +
        std::to_string(groups));
  const Filter filter{w.size(0),  w.size(1) * groups, w.size(2),   w.size(3),   stride[0], stride[1],
                      padding[0], padding[1],         dilation[0], dilation[1], groups};
  if (winograd_outputs(chosen) > 0 &&
      (filter.rows != 3 || filter.cols != 3 || filter.stride_h != 1 || filter.stride_w != 1 ||
       filter.dilation_h != 1 || filter.dilation_w != 1 || groups != 1))
    fail(std::string(op) + ": Winograd's algorithms need a 3 x 3 filter of stride 1, dilation 1, 1 group");
  if (parts_of(chosen) > 0 && groups != 1) fail(std::string(op) + ": products in parts need 1 group");
  if (filter.rows * filter.cols > kMostTaps)
    fail(
        std::string(op) + ": a filter may have at most " + std::to_string(kMostTaps) + " taps; got " +
        std::to_string(filter.rows * filter.cols));
  return make_header(chosen, filter);
}

void pack_into(const PackedHeader& header, const Tensor& w, void* packed) {
  const int64_t strides[4] = {w.stride(0), w.stride(1), w.stride(2), w.stride(3)};
  write_header(header, packed);
  torch::stable::parallel_for(0, header.filter.panels(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t panel = begin; panel < end; ++panel)
      pack_panel(header, w.data_ptr(), strides, panel, packed);
  });
}

Tensor conv_pack(
    const Tensor& w, std::vector<int64_t> stride, std::vector<int64_t> padding, int64_t algorithm,
    std::vector<int64_t> dilation, int64_t groups) {
  const PackedHeader header = header_for("conv_pack", w, stride, padding, algorithm, dilation, groups);
  Tensor packed = cpu::empty(w, {header.bytes}, ScalarType::Byte);
  // 100 MB of a ResNet-50's weights pass through the TLB in each forward.
  advise_large_pages(packed.data_ptr(), header.bytes);
  pack_into(header, w, packed.data_ptr());
  return packed;
}

// watch(out): whom to tell of its pixels.
template <class Watch>
Tensor convolve(
    const char* op, const PackedHeader& header, const Tensor& x, const void* packed,
    const OptionalTensor& scale, const OptionalTensor& shift, const OptionalTensor& residual, bool relu,
    const Watch& watch) {
  check_input(op, header, x);
  check_channels(op, "packed", header, x.size(1));
  const Filter& filter = header.filter;
  Tensor out = new_output(x, filter.out_channels, filter.out_height(x.size(2)), filter.out_width(x.size(3)));
  if (residual.has_value()) cpu::check_like(op, "residual", *residual, out);
  const Watcher watcher = watch(out);
  if (out.numel() == 0) return out;
  const PaddedAffine affine(op, scale, shift, filter.out_channels);
  TorchTeam team;
  run_conv(
      packed, Epilogue{affine.scale(), affine.shift(), relu}, map_of(x),
      residual.has_value() ? map_of(*residual) : Map{}, map_of(out), team, watcher);
  return out;
}

Watcher nobody(const Tensor&) { return {}; }

Tensor conv_packed(
    const Tensor& x, const Tensor& packed, OptionalTensor scale, OptionalTensor shift,
    OptionalTensor residual, bool relu) {
  const PackedHeader& header = checked_header("conv_packed", "packed", packed);
  return convolve("conv_packed", header, x, packed.data_ptr(), scale, shift, residual, relu, nobody);
}

// conv(x, w) + residual with weights packed for this call alone, in memory that is used again: a training
// step packs 100 MB of them, which malloc would give back and the kernel clear each time.
template <class Watch>
Tensor convolve_once(
    const char* op, const Tensor& x, const Tensor& w, const OptionalTensor& residual,
    const std::vector<int64_t>& stride, const std::vector<int64_t>& padding, int64_t algorithm,
    const Watch& watch) {
  const PackedHeader header = header_for(op, w, stride, padding, algorithm);
  char* packed = scratch_memory(header.bytes, Scratch::kWeights);
  pack_into(header, w, packed);
  return convolve(op, header, x, packed, std::nullopt, std::nullopt, residual, false, watch);
}

Tensor conv_once(
    const Tensor& x, const Tensor& w, OptionalTensor residual, std::vector<int64_t> stride,
    std::vector<int64_t> padding, int64_t algorithm) {
  return convolve_once("conv_once", x, w, residual, stride, padding, algorithm, nobody);
}

// conv_once, and bn_stats of its output while that is near.
std::tuple<Tensor, Tensor, Tensor, Tensor> conv_once_stats(
    const Tensor& x, const Tensor& w, std::vector<int64_t> stride, std::vector<int64_t> padding,
    int64_t algorithm) {
  std::optional<cpu::StatsPass> stats;
  std::optional<cpu::NearPass> near;
  const auto watch = [&](const Tensor& y) {
    stats.emplace(y);
    near.emplace(stats->pass);
    return near->watcher();
  };
  Tensor y = convolve_once("conv_once_stats", x, w, std::nullopt, stride, padding, algorithm, watch);
  near->finish();
  return {y, stats->count, stats->mean, stats->m2};
}

// conv_once(dy, w), a dgrad, and bn_act_bwd_reduce of its output, in place while that is near.
std::tuple<Tensor, Tensor> conv_once_reduce(
    const Tensor& dy, const Tensor& w, OptionalTensor out, OptionalTensor y, OptionalTensor s,
    OptionalTensor t, OptionalTensor mean, OptionalTensor invstd, std::vector<int64_t> padding,
    int64_t algorithm) {
  constexpr const char* kOp = "conv_once_reduce";
  const cpu::ReduceOperands operands{out, y, s, t, mean, invstd, {}, {}, {}};
  std::optional<cpu::ReducePass> reduce;
  std::optional<cpu::NearPass> near;
  const auto watch = [&](const Tensor& dz) {
    reduce.emplace(kOp, dz, operands, dz);
    near.emplace(reduce->pass());
    return near->watcher();
  };
  Tensor dz = convolve_once(kOp, dy, w, std::nullopt, {1, 1}, padding, algorithm, watch);
  near->finish();
  return {dz, reduce->sums()};
}

// The gradient of a strided 1 x 1 convolution's input: `add`, or zeros, and at every stride-th pixel the
// convolution of dy with the turned filters.
Tensor dgrad_strided(
    const Tensor& dy, const Tensor& turned, OptionalTensor add, std::vector<int64_t> x_shape,
    std::vector<int64_t> stride, int64_t algorithm) {
  constexpr const char* kOp = "dgrad_strided";
  const PackedHeader header = header_for(kOp, turned, {1, 1}, {0, 0}, algorithm);
  if (!header.filter.pointwise()) fail("dgrad_strided: needs a 1 x 1 filter");
  check_input(kOp, header, dy);
  check_channels(kOp, "turned", header, dy.size(1));
  const auto reached = [&](int dimension) {
    return (x_shape[dimension] - 1) / stride[dimension - 2] + 1 == dy.size(dimension);
  };
  if (x_shape.size() != 4 || x_shape[0] != dy.size(0) || x_shape[1] != header.filter.out_channels ||
      !reached(2) || !reached(3))
    fail("dgrad_strided: `x_shape` must be the input's of a convolution with `dy`'s output");
  Tensor dx = new_output(dy, x_shape[1], x_shape[2], x_shape[3]);
  if (add.has_value()) cpu::check_like(kOp, "add", *add, dx);
  if (dx.numel() == 0) return dx;
  Map to = map_of(dx);
  cpu::parallel(x_shape[0] * x_shape[2], x_shape[3] * x_shape[1], [&](int64_t begin, int64_t end) {
    char* rows = to.data + begin * to.row;
    const int64_t bytes = (end - begin) * to.row;
    if (add.has_value()) {
      std::memcpy(rows, static_cast<const char*>(add->data_ptr()) + begin * to.row, bytes);
    } else {
      std::memset(rows, 0, bytes);
    }
  });
  char* packed = scratch_memory(header.bytes, Scratch::kWeights);
  pack_into(header, turned, packed);
  to.height = dy.size(2);
  to.width = dy.size(3);
  to.pixel *= stride[1];
  to.row *= stride[0];
  const PaddedAffine affine(kOp, std::nullopt, std::nullopt, x_shape[1]);
  TorchTeam team;
  run_conv(packed, Epilogue{affine.scale(), affine.shift(), false}, map_of(dy), to, to, team);
  return dx;
}

}  // namespace
}  // namespace fusedres::conv

STABLE_TORCH_LIBRARY_IMPL(fusedres_cpu, CPU, m) {
  m.impl("conv_pack", TORCH_BOX(&fusedres::conv::conv_pack));
  m.impl("conv_once", TORCH_BOX(&fusedres::conv::conv_once));
  m.impl("conv_once_stats", TORCH_BOX(&fusedres::conv::conv_once_stats));
  m.impl("conv_once_reduce", TORCH_BOX(&fusedres::conv::conv_once_reduce));
  m.impl("dgrad_strided", TORCH_BOX(&fusedres::conv::dgrad_strided));
  m.impl("conv_packed", TORCH_BOX(&fusedres::conv::conv_packed));
}

STABLE_TORCH_LIBRARY_IMPL(fusedres_cpu, CompositeExplicitAutograd, m) {
  m.impl("conv_engine_runs", TORCH_BOX(&fusedres::conv::conv_engine_runs));
  m.impl("conv_engine_isa", TORCH_BOX(&fusedres::conv::conv_engine_isa));
}
