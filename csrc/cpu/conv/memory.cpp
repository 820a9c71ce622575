#include "cpu/conv/memory.h"

#include <cstdlib>
#include <memory>
#include <new>

#include "cpu/pages.h"

namespace fusedres::conv {
namespace {

struct Free {
  void operator()(char* data) const { std::free(data); }
};

struct Buffer {
  std::unique_ptr<char, Free> data;
  int64_t capacity = 0;
};

}  // namespace

char* scratch_memory(int64_t bytes, Scratch use) {
  thread_local Buffer buffers[3];
  Buffer& buffer = buffers[static_cast<int>(use)];
  if (bytes > buffer.capacity) {
    buffer = Buffer{};
    const int64_t rounded = (bytes + kLargePage - 1) / kLargePage * kLargePage;
    buffer.data.reset(static_cast<char*>(std::aligned_alloc(kLargePage, rounded)));
    if (buffer.data == nullptr) throw std::bad_alloc();
    advise_large_pages(buffer.data.get(), rounded);
    buffer.capacity = rounded;
  }
  return buffer.data.get();
}

}  // namespace fusedres::conv
