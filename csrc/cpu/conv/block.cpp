#include "cpu/conv/block.h"

#include <algorithm>

#include "cpu/conv/images.h"
#include "cpu/conv/memory.h"

namespace fusedres::conv {
namespace {

class BlockTask;

struct Step {
  const BlockTask* begins;  // whose borders are cleared in this step, which reads none; or null
  const ConvTask* task;
  int64_t phase, chunks;
};

// The tasks of one block over some images.
class BlockTask {
 public:
  BlockTask(const Block& block, const Map& in, const Map& out, int64_t threads) : in_(in), out_(out) {
    tasks_.reserve(4);
    Map next = in;
    convs_ = block.convs[2].packed == nullptr ? 2 : 3;
    for (size_t i = 0; i < convs_; ++i) {
      const BlockConv& conv = block.convs[i];
      const bool rounds = block.rounds && i + 1 == convs_;
      tasks_.emplace_back(conv.packed, Epilogue{conv.scale, conv.shift, true, rounds}, next, threads);
      next = tasks_.back().output_like();
    }
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

  void precede(const BlockTask& next) { tasks_[convs_ - 1].precede(next.in_order(0)); }

  // The phases of its convolutions; the downsample runs first.
  void list(std::vector<Step>& steps) const {
    for (size_t i = 0; i < tasks_.size(); ++i) {
      const ConvTask& task = in_order(i);
      for (int64_t phase = 0; phase < task.phases(); ++phase)
        steps.push_back({i == 0 && phase == 0 ? this : nullptr, &task, phase, task.chunks(phase)});
    }
  }
  void clear(int64_t chunk, int64_t chunks) const {
    for (const ConvTask& task : tasks_) task.clear(chunk, chunks);
  }

 private:
  const ConvTask& in_order(size_t i) const { return tasks_[(i + convs_) % tasks_.size()]; }

  std::vector<ConvTask> tasks_;
  size_t convs_ = 0;
  Map in_, out_;
};

void run_steps(const std::vector<Step>& steps, Team& team) {
  std::vector<int64_t> chunks;
  for (const Step& step : steps) chunks.push_back(step.chunks);
  team.run(chunks, [&](int64_t i, int64_t chunk, int64_t thread) {
    const Step& step = steps[i];
    if (step.begins != nullptr) step.begins->clear(chunk, step.chunks);
    step.task->run(step.phase, chunk, thread);
  });
}

// Above so many images at once a block's weights outweigh its activations: every thread that carries images
// by itself reads all of them again and again, which costs more than the barriers of going together.
// ResNet-50's stages 3 and 4 in fp32: the network 1.02, 1.09, 1.10 and 1.10 times as fast at batch 2, 4, 8
// and 16.
constexpr int64_t kTogether = 20;

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
  std::vector<int64_t> chunks;
  for (int64_t phase = 0; phase < task.phases(); ++phase) chunks.push_back(task.chunks(phase));
  team.run(chunks, [&](int64_t phase, int64_t chunk, int64_t thread) { task.run(phase, chunk, thread); });
}

void run_block(const Block& block, const Map& in, const Map& out, Team& team) {
  const auto task_of = [&](Range images, int64_t threads) {
    return BlockTask(
        block, in.from_image(images.begin, images.size()), out.from_image(images.begin, images.size()),
        threads);
  };
  const auto bytes_of = [&](int64_t images, int64_t threads) {
    return task_of({0, images}, threads).memory_bytes();
  };
  const auto run = [&](Range images, char* memory, Team& by) {
    BlockTask task = task_of(images, by.size);
    task.place(memory);
    std::vector<Step> steps;
    task.list(steps);
    run_steps(steps, by);
  };
  const int64_t at_once = images_at_once(block, in);
  if (team.size == 1 || at_once < kTogether) return share_images(in.images, at_once, team, bytes_of, run);
  const int64_t groups = std::max<int64_t>(1, ceil_div(in.images, at_once));
  // Fewer images may need more: see share_images.
  const int64_t bytes =
      std::max(bytes_of(in.images / groups, team.size), bytes_of(ceil_div(in.images, groups), team.size));
  char* memory = scratch_memory(bytes);
  for (int64_t group = 0; group < groups; ++group) run(share(in.images, group, groups), memory, team);
}

void run_blocks(const std::vector<Block>& blocks, const Map& in, std::vector<Map> outs, Team& team) {
  // A block without a downsample writes over its input, any other into the buffer that its input is not in:
  // a third less traffic, and the output's lines are in the cache that has just read them as a residual.
  const auto in_place = [&](size_t i) { return i > 0 && blocks[i].downsample.packed == nullptr; };
  size_t last = blocks.size() - 1;  // from here on blocks write to the output's own memory
  while (in_place(last)) --last;
  int64_t buffers[2] = {};
  for (size_t i = 0, side = 0; i < last; ++i) {
    side ^= !in_place(i);
    buffers[side] = std::max(buffers[side], round_up(outs[i].images * outs[i].image, 64));
  }
  std::vector<BlockTask> tasks;
  tasks.reserve(blocks.size());
  const auto plan = [&](char* memory) {
    tasks.clear();
    for (size_t i = 0, side = 0; i < blocks.size(); ++i) {
      side ^= !in_place(i);
      outs[i].data = i < last ? memory + (side ? buffers[0] : 0) : outs.back().data;
      tasks.emplace_back(blocks[i], i == 0 ? in : outs[i - 1], outs[i], team.size);
    }
  };
  plan(in.data);  // what they need does not depend on where the buffers lie
  int64_t own = 0;
  for (const BlockTask& task : tasks) own = std::max(own, task.memory_bytes());
  const int64_t between = buffers[0] + buffers[1];
  char* memory = scratch_memory(between + own);
  plan(memory);
  std::vector<Step> steps;
  for (size_t i = 0; i < tasks.size(); ++i) {
    tasks[i].place(memory + between);  // free again when the block's last phase has ended
    if (i + 1 < tasks.size()) tasks[i].precede(tasks[i + 1]);
  }
  for (const BlockTask& task : tasks) task.list(steps);
  run_steps(steps, team);
}

}  // namespace fusedres::conv
