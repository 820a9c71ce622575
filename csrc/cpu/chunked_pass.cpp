#include "cpu/chunked_pass.h"

#include <algorithm>

namespace fusedres::cpu {

conv::Watcher NearPass::watcher() {
  return {
      [](void* self, int64_t first, int64_t begin, int64_t end) {
        static_cast<NearPass*>(self)->completed(first, begin, end);
      },
      this};
}

void NearPass::completed(int64_t first, int64_t begin, int64_t end) {
  const int64_t rows = pass_.chunks.rows;
  // A chunk that ends in [begin, end) and begins where the thread did, or later.
  for (int64_t chunk = std::max((first + rows - 1) / rows, begin / rows); chunk < pass_.chunks.count;
       ++chunk) {
    if (std::min((chunk + 1) * rows, pass_.rows) > end) break;
    pass_.run(chunk, chunk + 1);
    done_[chunk] = 1;
  }
}

void NearPass::finish() {
  std::vector<int64_t> left;
  for (int64_t chunk = 0; chunk < pass_.chunks.count; ++chunk)
    if (done_[chunk] == 0) left.push_back(chunk);
  const int64_t values = pass_.chunks.rows * pass_.row_values;
  parallel(static_cast<int64_t>(left.size()), values, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) pass_.run(left[i], left[i] + 1);
  });
}

}  // namespace fusedres::cpu
