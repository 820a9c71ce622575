// fusedres_cpu::stem_packed; its schema stands in fusedres/backends/cpu/engine.py.
#include "cpu/conv/engine_op.h"
#include "cpu/conv/images.h"
#include "cpu/conv/pieces.h"
#include "cpu/conv/task.h"
#include "cpu/kernels/params.h"

namespace fusedres::conv {
namespace {

constexpr const char* kOp = "stem_packed";

// The convolution of some images into scratch memory, and its pooling from there.
class StemTask {
 public:
  StemTask(const void* packed, const Epilogue& epilogue, const Map& in, const Map& out, int64_t threads)
      : conv_(packed, epilogue, in, threads), wide_(conv_.output_like()), out_(out), threads_(threads) {}

  int64_t memory_bytes() const {
    return round_up(conv_.memory_bytes(), 64) + round_up(wide_.images * wide_.image, 64);
  }
  void place(char* memory) {
    conv_.place(memory);
    wide_.data = memory + round_up(conv_.memory_bytes(), 64);
    conv_.write(wide_, Map{});
  }

  template <class Element>
  void run(Team& team) const {
    const int64_t pooling = conv_.phases();
    std::vector<int64_t> chunks;
    for (int64_t phase = 0; phase < pooling; ++phase) chunks.push_back(conv_.chunks(phase));
    chunks.push_back(piece_count(threads_));
    const Maxpool<Element> pool{
        reinterpret_cast<const Element*>(wide_.data),
        reinterpret_cast<Element*>(out_.data),
        wide_.height,
        wide_.width,
        out_.height,
        out_.width,
        out_.channels};
    team.run(chunks, [&](int64_t phase, int64_t chunk, int64_t thread) {
      if (phase < pooling) return conv_.run(phase, chunk, thread);
      const Range rows = piece(out_.images * out_.height, chunk, threads_);
      kernels().of<Element>().maxpool(pool, rows.begin, rows.end);
    });
  }

 private:
  ConvTask conv_;
  Map wide_, out_;
  int64_t threads_;
};

// max over 3 x 3 windows, stride 2, padding 1, of relu(conv(x) * scale + shift). x (N, C, H, W) -> (N, K,
// P, Q). What the convolution writes stays near: an image at a time on each thread.
Tensor stem_packed(const Tensor& x, const Tensor& packed, OptionalTensor scale, OptionalTensor shift) {
  const PackedHeader& header = checked_header(kOp, "packed", packed);
  check_input(kOp, header, x);
  check_channels(kOp, "packed", header, x.size(1));
  const Filter& filter = header.filter;
  const int64_t height = filter.out_height(x.size(2)), width = filter.out_width(x.size(3));
  check_pixels(kOp, height, width);
  Tensor out = new_output(x, filter.out_channels, pooled(height), pooled(width));
  if (out.numel() == 0) return out;
  const PaddedAffine affine(kOp, scale, shift, filter.out_channels);
  const Epilogue epilogue{affine.scale(), affine.shift(), true};
  const Map from = map_of(x), to = map_of(out);
  const auto task_of = [&](Range images, int64_t threads) {
    return StemTask(
        packed.data_ptr(), epilogue, from.from_image(images.begin, images.size()),
        to.from_image(images.begin, images.size()), threads);
  };
  TorchTeam team;
  cpu::dispatch_element(x, [&](auto element) {
    share_images(
        x.size(0), 1, team,
        [&](int64_t images, int64_t threads) { return task_of({0, images}, threads).memory_bytes(); },
        [&](Range images, char* memory, Team& by) {
          StemTask task = task_of(images, by.size);
          task.place(memory);
          task.run<decltype(element)>(by);
        });
  });
  return out;
}

}  // namespace
}  // namespace fusedres::conv

STABLE_TORCH_LIBRARY_IMPL(fusedres_cpu, CPU, m) {
  m.impl("stem_packed", TORCH_BOX(&fusedres::conv::stem_packed));
}
