// Memory of outputs and scratch, which the next ones use again.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>

namespace fusedres {

// One range of virtual memory with best-fit blocks. malloc maps what exceeds 32 MB anew each time and gives
// it back: a forward or a training step then waits for the kernel to clear, page by page, what the one before
// had cleared already. Here a block returns to the range when the last tensor that uses it is gone, with its
// pages. Any thread may take and give back. Nothing is given to the system before the pool ends.
class Pool {
 public:
  // Reserves `bytes`, which cost nothing until they are used; where they cannot be had the pool is empty.
  explicit Pool(int64_t bytes);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  // At least `bytes` that nobody else holds, aligned to a page and not cleared; null where there is no room.
  void* take(int64_t bytes);
  void give_back(void* data);

  struct Usage {
    int64_t taken;    // in blocks that are held now
    int64_t reached;  // the most physical memory that it may keep so far: its blocks ended below this
    int64_t bound;    // what was reserved
  };
  Usage usage() const;

  // For fork(): a child gets a lock that nobody holds.
  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }

 private:
  using Blocks = std::map<int64_t, int64_t>;  // offset -> bytes
  void insert_free(int64_t offset, int64_t bytes);

  char* base_ = nullptr;
  int64_t bound_ = 0, taken_bytes_ = 0, reached_ = 0;
  Blocks free_, taken_;
  mutable std::mutex mutex_;
};

// The process's pool, as large as FUSEDRES_CPU_POOL (megabytes) allows. It outlives every tensor.
Pool& output_pool();

}  // namespace fusedres
