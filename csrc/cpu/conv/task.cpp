#include "cpu/conv/task.h"

#include "cpu/conv/pieces.h"
#include "cpu/conv/support.h"

namespace fusedres::conv {
ConvTask::ConvTask(const void* packed, const Epilogue& epilogue, const Map& in, int64_t threads)
    : threads_(threads), source_(in), input_(in) {
  const PackedHeader& header = packed_header(packed);
  const auto algorithm = static_cast<Algorithm>(header.algorithm);
  const Filter& filter = header.filter;
  winograd_ = winograd_outputs(algorithm) > 0;
  produced_ = in.data == nullptr;
  element_ = element_size(data_type(algorithm));
  direct_.packed = fast_.packed = packed;
  direct_.epilogue = fast_.epilogue = epilogue;
  direct_.tiles = fast_.tiles = &tiles_of(header);

  if (winograd_) {
    if (produced_) input_bytes_ = in.images * in.image;
    fast_.transforms = &transforms_of(header);
    fast_.in = in;
    fast_.out = output_like();
    fast_.plan(threads);
    fast_bytes_ = round_up(fast_.scratch_bytes(), 64);
  } else {
    staging_ = plan_staging(header, in, produced_);
    copies_ = staging_.needed && !produced_;
    input_bytes_ = staging_.bytes;
    const bool subsampled = staging_.take_h > 1 || staging_.take_w > 1;
    direct_.step_h = subsampled ? 1 : filter.stride_h;
    direct_.step_w = subsampled ? 1 : filter.stride_w;
    direct_.in = in;
  }
  input_bytes_ = round_up(input_bytes_, 64);
}

void ConvTask::place(char* memory) {
  if (winograd_) {
    fast_.scratch = memory + input_bytes_;
    if (produced_) input_.data = memory;
    fast_.in = input_;
  } else if (staging_.needed) {
    staging_.map.data = memory;
    direct_.in = staging_.map;
    if (produced_) input_ = staged_pixels(staging_, source_);
  }
}

Map ConvTask::output_like() const {
  const Filter& filter = packed_header(direct_.packed).filter;
  return dense_map(
      nullptr, source_.images, filter.out_height(source_.height), filter.out_width(source_.width),
      filter.out_channels, element_);
}

void ConvTask::write(const Map& out, const Map& residual) {
  direct_.out = fast_.out = out;
  direct_.residual = fast_.residual = residual;
  if (!winograd_) direct_.plan(threads_);
}

void ConvTask::clear(int64_t part, int64_t parts) const {
  if (produced_ && !winograd_) clear_border(staging_, input_, element_, part, parts);
}

int64_t ConvTask::chunks(int64_t phase) const {
  if (copies_ && phase == 0) return piece_count(threads_);
  return winograd_ ? fast_.chunks() : direct_.chunks();
}

void ConvTask::run(int64_t phase, int64_t chunk, int64_t thread) const {
  if (copies_ && phase == 0)
    return fill_staging(staging_, source_, element_, piece(staging_.rows(), chunk, threads_));
  winograd_ ? fast_.run(phase - copies_, chunk, thread) : direct_.run(chunk);
}

}  // namespace fusedres::conv
