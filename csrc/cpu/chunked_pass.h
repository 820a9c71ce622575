// Passes over an activation's rows in chunks, which run on their own or while the activation is computed.
#pragma once

#include <functional>
#include <vector>

#include "cpu/conv/shape.h"
#include "cpu/tensor.h"

namespace fusedres::cpu {

// What runs on chunks of the rows of a tensor. Chunks are independent.
struct ChunkedPass {
  Chunks chunks;
  int64_t rows, row_values;
  std::function<void(int64_t begin, int64_t end)> run;  // chunks [begin, end)

  // All of it, on torch's threads.
  void run_all() const { parallel(chunks.count, chunks.rows * row_values, run); }
};

// Runs each chunk of a pass as soon as a convolution has completed its rows, when they still are in L2, and at the end
// those that no thread completed alone. It runs the same chunks as the pass on its own: not a bit differs.
class NearPass {
 public:
  explicit NearPass(const ChunkedPass& pass)
      : pass_(pass), parts_(torch::stable::get_num_threads()), done_(pass.chunks.count, 0) {}

  conv::Watcher watcher();
  void finish();

 private:
  struct alignas(64) Part {
    int64_t next = -1;  // chunk; none yet
  };
  void completed(int64_t part, int64_t begin, int64_t end);

  const ChunkedPass& pass_;
  std::vector<Part> parts_;
  std::vector<char> done_;
};

}  // namespace fusedres::cpu
