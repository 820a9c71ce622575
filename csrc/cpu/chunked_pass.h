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

// Runs each chunk of a pass as soon as a convolution has completed its rows, when they still are in L2, and
// at the end those that no thread completed alone. It runs the same chunks as the pass on its own: not a bit
// differs.
class NearPass {
 public:
  explicit NearPass(const ChunkedPass& pass) : pass_(pass), done_(pass.chunks.count, 0) {}

  conv::Watcher watcher();
  void finish();

 private:
  void completed(int64_t first, int64_t begin, int64_t end);

  const ChunkedPass& pass_;
  std::vector<char> done_;  // each written by the one thread that completes the chunk
};

}  // namespace fusedres::cpu
