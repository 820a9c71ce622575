#include "cpu/conv/memory.h"

#include <cstdlib>
#include <new>

#include "cpu/pages.h"
#include "cpu/pool.h"

namespace fusedres::conv {
namespace {

// Lies in the pool of outputs: what it grew out of serves outputs, and what they no longer use serves it.
class Buffer {
 public:
  Buffer() = default;
  ~Buffer() { release(); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  char* at_least(int64_t bytes) {
    if (bytes > capacity_) {
      release();
      allocate((bytes + kRounding - 1) / kRounding * kRounding);
    }
    return data_;
  }

 private:
  static constexpr int64_t kRounding = 64 << 10;  // grows in few steps

  void allocate(int64_t bytes) {
    data_ = static_cast<char*>(output_pool().take(bytes));
    pooled_ = data_ != nullptr;
    if (!pooled_) {
      bytes = (bytes + kLargePage - 1) / kLargePage * kLargePage;
      data_ = static_cast<char*>(std::aligned_alloc(kLargePage, bytes));
      if (data_ == nullptr) throw std::bad_alloc();
      advise_large_pages(data_, bytes);
    }
    capacity_ = bytes;
  }

  void release() {
    if (data_ == nullptr) return;
    if (pooled_) {
      output_pool().give_back(data_);
    } else {
      std::free(data_);
    }
    data_ = nullptr;
    capacity_ = 0;
  }

  char* data_ = nullptr;
  int64_t capacity_ = 0;
  bool pooled_ = false;
};

}  // namespace

char* scratch_memory(int64_t bytes, Scratch use) {
  thread_local Buffer buffers[3];
  return buffers[static_cast<int>(use)].at_least(bytes);
}

}  // namespace fusedres::conv
