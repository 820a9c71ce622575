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

// Images that one thread takes through the block together: enough that a set of weights that does not fit
// L2 is read for several images, few enough that the inner activations stay there.
int64_t images_at_once(const Block& block, const Map& in) {
  int64_t weights = 0;
  for (const BlockConv& conv : block.convs)
    if (conv.packed != nullptr) weights += packed_header(conv.packed).bytes;
  const int64_t inner = packed_header(block.convs[0].packed).filter.out_channels * in.height * in.width * 4;
  return std::max<int64_t>(1, weights / std::max<int64_t>(inner, 1));
}

// Above so many images at once a block's weights outweigh its activations: every thread that takes images
// by itself reads all of them again and again, which costs more than the barriers of going together.
// ResNet-50's stages 3 and 4 in fp32: the network 1.02, 1.09, 1.10 and 1.10 times as fast at batch 2, 4, 8
// and 16.
constexpr int64_t kTogether = 20;

bool goes_together(const Block& block, const Map& in) { return images_at_once(block, in) >= kTogether; }

// Memory for what lies between blocks. A block without a downsample writes over its input, any other into the
// buffer that its input is not in: a third less traffic, and the output's lines are in the cache that has
// just read them as a residual. The last blocks write to the output's own memory.
class Between {
 public:
  Between(const std::vector<Block>& blocks, const std::vector<Map>& outs) : blocks_(blocks), outs_(outs) {
    last_ = blocks.size() - 1;
    while (in_place(last_)) --last_;
    for (size_t i = 0, side = 0; i < last_; ++i) {
      side ^= !in_place(i);
      buffers_[side] = std::max(buffers_[side], outs[i].image);
    }
  }

  int64_t bytes(int64_t images) const { return buffer(0, images) + buffer(1, images); }

  // Each block's output, of as many images as `out`, the last one's.
  std::vector<Map> maps(const Map& out, char* memory) const {
    std::vector<Map> all;
    for (size_t i = 0, side = 0; i < blocks_.size(); ++i) {
      side ^= !in_place(i);
      Map map = out;
      if (i < last_) {
        map = outs_[i];
        map.images = out.images;
        map.data = memory + (side ? buffer(0, out.images) : 0);
      }
      all.push_back(map);
    }
    return all;
  }

 private:
  bool in_place(size_t i) const { return i > 0 && blocks_[i].downsample.packed == nullptr; }
  int64_t buffer(size_t side, int64_t images) const { return round_up(images * buffers_[side], 64); }

  const std::vector<Block>& blocks_;
  const std::vector<Map>& outs_;
  size_t last_ = 0;
  int64_t buffers_[2] = {};  // bytes an image
};

// Blocks over fewer images than threads.
void run_in_one_region(
    const std::vector<Block>& blocks, const Map& in, const std::vector<Map>& outs, Team& team) {
  const Between between(blocks, outs);
  std::vector<BlockTask> tasks;
  tasks.reserve(blocks.size());
  const auto plan = [&](char* memory) {
    const std::vector<Map> maps = between.maps(outs.back(), memory);
    tasks.clear();
    for (size_t i = 0; i < blocks.size(); ++i)
      tasks.emplace_back(blocks[i], i == 0 ? in : maps[i - 1], maps[i], team.size);
  };
  plan(in.data);  // what they need does not depend on where the buffers lie
  int64_t own = 0;
  for (const BlockTask& task : tasks) own = std::max(own, task.memory_bytes());
  char* memory = scratch_memory(between.bytes(in.images) + own);
  plan(memory);
  std::vector<Step> steps;
  for (size_t i = 0; i < tasks.size(); ++i) {
    // Free again when the block's last phase has ended.
    tasks[i].place(memory + between.bytes(in.images));
    if (i + 1 < tasks.size()) tasks[i].precede(tasks[i + 1]);
  }
  for (const BlockTask& task : tasks) task.list(steps);
  run_steps(steps, team);
}

BlockTask task_of(const Block& block, const Map& in, const Map& out, Range images, int64_t threads) {
  return {
      block, in.from_image(images.begin, images.size()), out.from_image(images.begin, images.size()),
      threads};
}

void run_task(BlockTask task, char* memory, Team& team) {
  task.place(memory);
  std::vector<Step> steps;
  task.list(steps);
  run_steps(steps, team);
}

// A block whose images all threads do together, some at once.
void run_together(const Block& block, const Map& in, const Map& out, Team& team) {
  const int64_t groups = std::max<int64_t>(1, ceil_div(in.images, images_at_once(block, in)));
  const auto bytes_of = [&](int64_t images) {
    return task_of(block, in, out, {0, images}, team.size).memory_bytes();
  };
  // Fewer images may need more: see share_images.
  const int64_t bytes = std::max(bytes_of(in.images / groups), bytes_of(ceil_div(in.images, groups)));
  char* memory = scratch_memory(bytes);
  for (int64_t group = 0; group < groups; ++group)
    run_task(task_of(block, in, out, share(in.images, group, groups), team.size), memory, team);
}

// Images that a thread carries through several blocks before it takes others: what lies between these stays
// near, and is never there for the whole batch.
class Carrying {
 public:
  Carrying(const std::vector<Block>& blocks, const Map& in, const std::vector<Map>& outs)
      : blocks_(blocks), in_(in), outs_(outs), between_(blocks, outs) {
    for (size_t i = 0; i < blocks.size(); ++i) at_once_.push_back(images_at_once(blocks[i], input(i)));
  }

  int64_t most() const { return *std::max_element(at_once_.begin(), at_once_.end()); }

  int64_t memory_bytes(int64_t images, int64_t threads) const {
    // What they need does not depend on where the maps lie.
    const std::vector<Map> maps = between_.maps(outs_.back().from_image(0, images), in_.data);
    int64_t own = 0;
    for (size_t i = 0; i < blocks_.size(); ++i)
      for (const int64_t now : {std::min(images, at_once_[i]), images % at_once_[i]})
        if (now > 0) {
          const Map& from = i == 0 ? in_ : maps[i - 1];
          own = std::max(own, task_of(blocks_[i], from, maps[i], {0, now}, threads).memory_bytes());
        }
    return between_.bytes(images) + own;
  }

  void run(Range images, char* memory, Team& team) const {
    Map from = in_.from_image(images.begin, images.size());
    const std::vector<Map> maps = between_.maps(outs_.back().from_image(images.begin, images.size()), memory);
    for (size_t i = 0; i < blocks_.size(); ++i) {
      for (int64_t first = 0; first < images.size(); first += at_once_[i])
        run_task(
            task_of(
                blocks_[i], from, maps[i], {first, std::min(first + at_once_[i], images.size())}, team.size),
            memory + between_.bytes(images.size()), team);
      from = maps[i];
    }
  }

 private:
  Map input(size_t i) const { return i == 0 ? in_ : outs_[i - 1]; }

  const std::vector<Block>& blocks_;
  const Map in_;
  const std::vector<Map>& outs_;
  Between between_;
  std::vector<int64_t> at_once_;  // of each block, of the images that are carried
};

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

void run_blocks(const std::vector<Block>& blocks, const Map& in, const std::vector<Map>& outs, Team& team) {
  if (in.images < team.size) return run_in_one_region(blocks, in, outs, team);
  if (blocks.size() == 1 && team.size > 1 && goes_together(blocks[0], in))
    return run_together(blocks[0], in, outs[0], team);
  const Carrying carrying(blocks, in, outs);
  share_images(
      in.images, carrying.most(), team,
      [&](int64_t images, int64_t threads) { return carrying.memory_bytes(images, threads); },
      [&](Range images, char* memory, Team& by) { carrying.run(images, memory, by); });
}

void run_block(const Block& block, const Map& in, const Map& out, Team& team) {
  run_blocks({block}, in, {out}, team);
}

size_t blocks_at_once(
    const std::vector<Block>& blocks, size_t first, const Map& in, const std::vector<Map>& outs,
    int64_t threads) {
  if (in.images < threads) return blocks.size() - first;
  size_t end = first;
  while (end < blocks.size() && !goes_together(blocks[end], end == 0 ? in : outs[end - 1])) ++end;
  return std::max<size_t>(end - first, 1);
}

}  // namespace fusedres::conv
