// The engine's ops: fusedres_cpu::conv_engine_runs, conv_engine_isa, conv_pack, conv_packed and their kin.
// Their schemas stand in fusedres/backends/cpu/engine.py.
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

bool conv_engine_runs(int64_t algorithm) { return is_runnable(algorithm); }

int64_t conv_engine_isa(int64_t algorithm) {
  if (!conv_engine_runs(algorithm))
    fail("conv_engine_isa: this process cannot run algorithm " + std::to_string(algorithm));
  return static_cast<int64_t>(tile_isa(static_cast<Algorithm>(algorithm)));
}

// The header of `w` packed for `algorithm`; throws where the algorithm does not take it.
PackedHeader header_for(
    const char* op, const Tensor& w, const std::vector<int64_t>& stride, const std::vector<int64_t>& padding,
    int64_t algorithm, const std::vector<int64_t>& dilation = kNoDilation, int64_t groups = 1) {
  const Algorithm chosen = checked_algorithm(op, algorithm, w);
  const Filter filter = checked_filter(op, shape_of(w), {stride, padding, dilation, groups});
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

Tensor conv_pack(
    const Tensor& w, std::vector<int64_t> stride, std::vector<int64_t> padding, int64_t algorithm,
    std::vector<int64_t> dilation, int64_t groups) {
  const PackedHeader header = header_for("conv_pack", w, stride, padding, algorithm, dilation, groups);
  Tensor packed = cpu::empty(w, {header.bytes}, ScalarType::Byte);
  // 100 MB of a ResNet-50's weights pass through the TLB in each forward.
  advise_large_pages(packed.data_ptr(), header.bytes);
  pack_into(header, w.data_ptr(), strides_of(w), packed.data_ptr());
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
  pack_into(header, w.data_ptr(), strides_of(w), packed);
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

}  // namespace
}  // namespace fusedres::conv

STABLE_TORCH_LIBRARY_IMPL(fusedres_cpu, CPU, m) {
  m.impl("conv_pack", TORCH_BOX(&fusedres::conv::conv_pack));
  m.impl("conv_once", TORCH_BOX(&fusedres::conv::conv_once));
  m.impl("conv_once_stats", TORCH_BOX(&fusedres::conv::conv_once_stats));
  m.impl("conv_once_reduce", TORCH_BOX(&fusedres::conv::conv_once_reduce));
  m.impl("conv_packed", TORCH_BOX(&fusedres::conv::conv_packed));
}

STABLE_TORCH_LIBRARY_IMPL(fusedres_cpu, CompositeExplicitAutograd, m) {
  m.impl("conv_engine_runs", TORCH_BOX(&fusedres::conv::conv_engine_runs));
  m.impl("conv_engine_isa", TORCH_BOX(&fusedres::conv::conv_engine_isa));
}
