#include "cpu/conv/memory.h"

#include <cstdlib>
#include <memory>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace fusedres::conv {
namespace {

constexpr int64_t kLargePage = 2 << 20;

struct Free {
  void operator()(char* data) const { std::free(data); }
};

}  // namespace

char* scratch_memory(int64_t bytes) {
  thread_local std::unique_ptr<char, Free> memory;
  thread_local int64_t capacity = 0;
  if (bytes > capacity) {
    memory.reset();
    capacity = 0;
    const int64_t rounded = (bytes + kLargePage - 1) / kLargePage * kLargePage;
    memory.reset(static_cast<char*>(std::aligned_alloc(kLargePage, rounded)));
    if (memory == nullptr) throw std::bad_alloc();
    advise_large_pages(memory.get(), rounded);
    capacity = rounded;
  }
  return memory.get();
}

void advise_large_pages(void* data, int64_t bytes) {
#if defined(__linux__)
  const auto begin = reinterpret_cast<uintptr_t>(data);
  const uintptr_t first = (begin + kLargePage - 1) / kLargePage * kLargePage;
  const uintptr_t last = (begin + bytes) / kLargePage * kLargePage;
  if (last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#else
  (void)data;
  (void)bytes;
#endif
}

}  // namespace fusedres::conv
