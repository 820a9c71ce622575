// The op fusedres_cpu::dgrad_strided, for dgrad at a stride. The pixels of dx fall into phases, as many as
// strides: those a stride apart are reached by the same taps, and are a convolution of dy with these, at
// stride 1. So nothing is multiplied by the zeros between dy's pixels.
#include <algorithm>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "cpu/conv/block.h"
#include "cpu/conv/engine_op.h"
#include "cpu/conv/memory.h"
#include "cpu/tensor.h"

namespace fusedres::conv {
namespace {

// One dimension of a phase: rows `first`, `first` + stride, ... of dx. Of its `size` rows u,
//   dx[u] = the sum over j < taps of w[last_tap - stride * j] * dy[u - lead + j],
// where dy's rows below 0 and behind its last are zeros.
struct Phase {
  int64_t first, size, taps, last_tap, lead, behind;
};

std::vector<Phase> phases_of(int64_t in, int64_t out, int64_t taps, int64_t stride, int64_t padding) {
  std::vector<Phase> phases;
  for (int64_t first = 0; first < std::min(stride, in); ++first) {
    const int64_t size = ceil_div(in - first, stride);
    const int64_t first_tap = (first + padding) % stride;
    const int64_t count = first_tap < taps ? (taps - 1 - first_tap) / stride + 1 : 0;
    const int64_t from_first_tap = (first + padding - first_tap) / stride;  // u + this is its row of dy
    const int64_t lead = count - 1 - from_first_tap;
    const int64_t behind = size + from_first_tap - out;
    phases.push_back({first, size, count, first_tap + stride * (count - 1), lead, behind});
  }
  return phases;
}

void check_sizes(
    const char* op, const Tensor& dy, const Tensor& w, const std::vector<int64_t>& x_shape,
    const std::vector<int64_t>& stride, const std::vector<int64_t>& padding) {
  if (x_shape.size() != 4 || x_shape[0] != dy.size(0) || x_shape[1] != w.size(1) || dy.size(1) != w.size(0))
    fail(
        std::string(op) +
        ": `x_shape`, `dy` and `w` must be (N, C, H, W), (N, K, P, Q) and (K, C, R, S); got " +
        listed(x_shape) + ", " + listed(shape_of(dy)) + " and " + listed(shape_of(w)));
  for (int d = 0; d < 2; ++d) {
    if (padding[d] >= w.size(2 + d))
      fail(
          std::string(op) + ": `padding` must be less than the filter's " + std::to_string(w.size(2 + d)) +
          " taps; got " + std::to_string(padding[d]));
    const int64_t room = x_shape[2 + d] + 2 * padding[d] - w.size(2 + d);
    if (room < 0 || room / stride[d] + 1 != dy.size(2 + d))
      fail(
          std::string(op) + ": `x_shape` must be the input's of a convolution with `dy`'s output " +
          listed(shape_of(dy)) + "; got " + listed(x_shape));
  }
}

// dx = add, or zeros: what pixels without a tap keep, and the others add to.
void fill(const Tensor& dx, const OptionalTensor& add) {
  const Map to = map_of(dx);
  cpu::parallel(to.images * to.height, to.width * to.channels, [&](int64_t begin, int64_t end) {
    char* rows = to.data + begin * to.row;
    const int64_t bytes = (end - begin) * to.row;
    if (add.has_value()) {
      std::memcpy(rows, static_cast<const char*>(add->data_ptr()) + begin * to.row, bytes);
    } else {
      std::memset(rows, 0, bytes);
    }
  });
}

// The phase's pixels of a map in dx's size.
Map pixels_of(Map map, const Phase& rows, const Phase& cols, const std::vector<int64_t>& stride) {
  map.data = map.at(0, rows.first, cols.first);
  map.height = rows.size;
  map.width = cols.size;
  map.row *= stride[0];
  map.pixel *= stride[1];
  return map;
}

// dy without the rows and columns in front that a negative lead passes over.
Map read_by(Map dy, const Phase& rows, const Phase& cols) {
  const int64_t above = std::max<int64_t>(-rows.lead, 0), left = std::max<int64_t>(-cols.lead, 0);
  dy.data = dy.at(0, above, left);
  dy.height -= above;
  dy.width -= left;
  return dy;
}

Tensor dgrad_strided(
    const Tensor& dy, const Tensor& w, OptionalTensor add, std::vector<int64_t> x_shape,
    std::vector<int64_t> stride, std::vector<int64_t> padding, int64_t algorithm) {
  constexpr const char* kOp = "dgrad_strided";
  const Algorithm chosen = checked_algorithm(kOp, algorithm, w);
  if (winograd_outputs(chosen) > 0) fail("dgrad_strided: Winograd's algorithms need stride 1");
  if (w.size(2) * w.size(3) > kMostTaps)
    fail("dgrad_strided: a filter may have at most " + std::to_string(kMostTaps) + " taps");
  cpu::check_activation(kOp, "dy", dy);
  if (dy.scalar_type() != w.scalar_type()) fail("dgrad_strided: `dy` must have the dtype of `w`");
  checked_filter(kOp, shape_of(w), {stride, padding, kNoDilation, 1});
  check_sizes(kOp, dy, w, x_shape, stride, padding);
  Tensor dx = new_output(dy, x_shape[1], x_shape[2], x_shape[3]);
  if (add.has_value()) cpu::check_like(kOp, "add", *add, dx);
  if (dx.numel() == 0) return dx;

  const std::vector<Phase> rows = phases_of(x_shape[2], dy.size(2), w.size(2), stride[0], padding[0]);
  const std::vector<Phase> cols = phases_of(x_shape[3], dy.size(3), w.size(3), stride[1], padding[1]);
  const auto untouched = [](const Phase& phase) { return phase.taps == 0; };
  const bool fills =
      std::any_of(rows.begin(), rows.end(), untouched) || std::any_of(cols.begin(), cols.end(), untouched);
  if (fills) fill(dx, add);
  std::optional<Map> residual;
  if (fills || add.has_value()) residual = map_of(fills ? dx : *add);

  const PaddedAffine affine(kOp, std::nullopt, std::nullopt, x_shape[1]);
  const WeightStrides own = strides_of(w);
  const int64_t element = element_size(data_type(chosen));
  TorchTeam team;
  for (const Phase& r : rows)
    for (const Phase& c : cols) {
      if (r.taps == 0 || c.taps == 0) continue;
      // Its filters are w's with K and C in each other's place, and every stride-th tap, backwards.
      Filter filter{w.size(1), w.size(0), r.taps, c.taps, 1, 1};
      filter.pad_h = std::max<int64_t>(r.lead, 0);
      filter.pad_w = std::max<int64_t>(c.lead, 0);
      filter.behind_h = r.behind - filter.pad_h;
      filter.behind_w = c.behind - filter.pad_w;
      const PackedHeader header = make_header(chosen, filter);
      const WeightStrides strides{own[1], own[0], -stride[0] * own[2], -stride[1] * own[3]};
      const int64_t first_weight = r.last_tap * own[2] + c.last_tap * own[3];
      char* packed = scratch_memory(header.bytes, Scratch::kWeights);
      pack_into(header, static_cast<const char*>(w.data_ptr()) + first_weight * element, strides, packed);
      run_conv(
          packed, Epilogue{affine.scale(), affine.shift(), false}, read_by(map_of(dy), r, c),
          residual.has_value() ? pixels_of(*residual, r, c, stride) : Map{},
          pixels_of(map_of(dx), r, c, stride), team);
    }
  return dx;
}

}  // namespace
}  // namespace fusedres::conv

STABLE_TORCH_LIBRARY_IMPL(fusedres_cpu, CPU, m) {
  m.impl("dgrad_strided", TORCH_BOX(&fusedres::conv::dgrad_strided));
}
