#include "cpu/conv/block.h"

#include <algorithm>

#include "cpu/conv/memory.h"

namespace fusedres::conv {
namespace {

// The tasks of one block over some images, in the order in which they run.
class BlockTask {
 public:
  BlockTask(const Block& block, const Map& in, const Map& out, int64_t threads) : in_(in), out_(out) {
    tasks_.reserve(4);
    Map next = in;
    for (const BlockConv& conv : block.convs) {
      if (conv.packed == nullptr) break;
      tasks_.emplace_back(conv.packed, Epilogue{conv.scale, conv.shift, true}, next, threads);
      next = tasks_.back().output_like();
    }
    convs_ = tasks_.size();
    if (block.downsample.packed != nullptr)
      tasks_.emplace_back(
          block.downsample.packed, Epilogue{block.downsample.scale, block.downsample.shift, false}, in,
          threads);
  }

  int64_t memory_bytes() const {
    int64_t bytes = 0;
    for (const ConvTask& task : tasks_) bytes += task.memory_bytes();
    return bytes;
  }

  void place(char* memory) {
    for (ConvTask& task : tasks_) {
      task.place(memory);
      memory += task.memory_bytes();
    }
    for (size_t i = 0; i + 1 < convs_; ++i) tasks_[i].write(tasks_[i + 1].input(), Map{});
    // The downsample's branch is written to the output, where the last convolution adds to it.
    const bool joins_downsample = tasks_.size() > convs_;
    if (joins_downsample) tasks_.back().write(out_, Map{});
    tasks_[convs_ - 1].write(out_, joins_downsample ? out_ : in_);
    for (size_t i = 0; i + 1 < convs_; ++i) tasks_[i].precede(tasks_[i + 1]);
    if (joins_downsample) tasks_.back().precede(tasks_[0]);
  }

  // In the order in which they run: the downsample first.
  template <class Each>
  void run(const Each& each) const {
    each([&](int64_t part) {
      for (const ConvTask& task : tasks_) task.clear(part);
    });
    for (size_t i = 0; i < tasks_.size(); ++i) {
      const ConvTask& task = tasks_[(i + convs_) % tasks_.size()];
      for (int64_t phase = 0; phase < task.phases(); ++phase)
        each([&](int64_t part) { task.run(phase, part); });
    }
  }

 private:
  std::vector<ConvTask> tasks_;
  size_t convs_ = 0;
  Map in_, out_;
};

// Images that one thread carries through the block together: enough that a set of weights that does not fit
// L2 is read for several images, few enough that the inner activations stay there.
int64_t images_at_once(const Block& block, const Map& in) {
  int64_t weights = 0;
  for (const BlockConv& conv : block.convs)
    if (conv.packed != nullptr) weights += packed_header(conv.packed).bytes;
  const int64_t inner = packed_header(block.convs[0].packed).filter.out_channels * in.height * in.width * 4;
  return std::max<int64_t>(1, weights / std::max<int64_t>(inner, 1));
}

}  // namespace

void run_conv(
    const void* packed, const Epilogue& epilogue, const Map& in, const Map& residual, const Map& out,
    Team& team, const Watcher& watcher) {
  ConvTask task(packed, epilogue, in, team.size);
  task.watch(watcher);
  task.place(scratch_memory(task.memory_bytes()));
  task.write(out, residual);
  for (int64_t phase = 0; phase < task.phases(); ++phase)
    team.each([&](int64_t part) { task.run(phase, part); });
}

void run_block(const Block& block, const Map& in, const Map& out, Team& team) {
  // Whole images to each thread, with no barrier inside the block; what is left over is done together.
  const int64_t alone = in.images / team.size * team.size;
  if (team.size > 1 && alone > 0) {
    const int64_t each = alone / team.size;
    const int64_t chunk = std::min(each, images_at_once(block, in));
    const int64_t bytes =
        BlockTask(block, in.from_image(0, chunk), out.from_image(0, chunk), 1).memory_bytes();
    char* memory = scratch_memory(bytes * team.size);
    team.each([&](int64_t part) {
      for (int64_t first = part * each; first < (part + 1) * each; first += chunk) {
        const int64_t count = std::min(chunk, (part + 1) * each - first);
        BlockTask task(block, in.from_image(first, count), out.from_image(first, count), 1);
        task.place(memory + part * bytes);
        task.run([](const auto& work) { work(0); });
      }
    });
  }
  const int64_t first = team.size > 1 ? alone : 0;
  if (first == in.images) return;
  const int64_t chunk = team.size > 1 ? in.images - first : images_at_once(block, in);
  for (int64_t n = first; n < in.images; n += chunk) {
    const int64_t count = std::min(chunk, in.images - n);
    BlockTask task(block, in.from_image(n, count), out.from_image(n, count), team.size);
    task.place(scratch_memory(task.memory_bytes()));
    task.run([&](const auto& work) { team.each(work); });
  }
}

}  // namespace fusedres::conv
