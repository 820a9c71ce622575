// Memory between pages that nobody may touch, and a team of std::threads.
//
// A sanitizer does not see what assembly and AMX read; the hardware does.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#include "cpu/conv/shape.h"
#include "cpu/conv/team.h"

namespace fusedres::conv {

// `bytes` that end, or begin, at a forbidden page; filled with `fill`.
class Guarded {
 public:
  enum class At { kEnd, kBegin };

  Guarded(int64_t bytes, At at, int fill, int64_t alignment = 4)
      : page_(sysconf(_SC_PAGESIZE)), size_(round_up(bytes + 1, page_) + 2 * page_) {
    base_ = static_cast<char*>(mmap(nullptr, size_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    char* first = base_ + page_;
    const int64_t inner = size_ - 2 * page_;
    if (base_ == MAP_FAILED || mprotect(first, inner, PROT_READ | PROT_WRITE) != 0) {
      std::perror("no guarded memory");
      std::exit(2);
    }
    data_ = at == At::kBegin ? first : first + (inner - bytes) / alignment * alignment;
    std::memset(first, fill, inner);
  }
  Guarded(Guarded&& other) noexcept
      : page_(other.page_),
        size_(other.size_),
        base_(std::exchange(other.base_, nullptr)),
        data_(other.data_) {}
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  Guarded& operator=(Guarded&&) = delete;
  ~Guarded() {
    if (base_ != nullptr) munmap(base_, size_);
  }

  char* data() const { return data_; }
  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  int64_t page_, size_;
  char *base_ = nullptr, *data_ = nullptr;
};

class ThreadTeam : public Team {
 public:
  explicit ThreadTeam(int64_t size) : Team(size) {}

 protected:
  void fork(void (*enter)(void*, int64_t), void* context) override {
    std::vector<std::thread> others;
    for (int64_t thread = 1; thread < size; ++thread) others.emplace_back(enter, context, thread);
    enter(context, 0);
    for (std::thread& other : others) other.join();
  }
};

}  // namespace fusedres::conv
