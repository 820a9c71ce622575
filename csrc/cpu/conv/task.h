// One convolution ready to run: its staging and scratch memory, its phases.
#pragma once

#include "cpu/conv/direct.h"
#include "cpu/conv/packed.h"
#include "cpu/conv/shape.h"
#include "cpu/conv/stage.h"
#include "cpu/conv/winograd.h"

namespace fusedres::conv {

class ConvTask {
 public:
  // Convolve `in` by `threads` threads. A null in.data means that another task will write the input, into
  // input(); where the kernels need a border or padding around it, this task provides that.
  ConvTask(const void* packed, const Epilogue& epilogue, const Map& in, int64_t threads);

  // Memory this task needs while it runs, to be given, aligned to 64 bytes, before anything below.
  int64_t memory_bytes() const { return input_bytes_ + fast_bytes_; }
  void place(char* memory);

  // Where a producer writes this task's input.
  const Map& input() const { return input_; }
  // The output's sizes, dense and without data.
  Map output_like() const;
  void write(const Map& out, const Map& residual);
  void watch(const Watcher& watcher) { direct_.watcher = fast_.watcher = watcher; }
  // What will run after this task.
  void precede(const ConvTask& next) { direct_.next = next.direct_.packed; }

  // To be run for every part at any time between place() and run(); it touches nothing a producer writes.
  void clear(int64_t part, int64_t parts) const;
  // Phases run one after the other, the chunks of a phase at once; see Team.
  int64_t phases() const { return (copies_ ? 1 : 0) + (winograd_ ? fast_.phases() : 1); }
  int64_t chunks(int64_t phase) const;
  void run(int64_t phase, int64_t chunk, int64_t thread) const;

 private:
  bool winograd_, produced_, copies_ = false;
  int64_t threads_, element_;
  int64_t input_bytes_ = 0, fast_bytes_ = 0;
  Map source_, input_;
  Staging staging_;
  DirectConv direct_;
  WinogradConv fast_;
};

}  // namespace fusedres::conv
