#include "cpu/pool.h"

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <stdexcept>
#include <string>

#include "cpu/pages.h"

#if defined(__linux__)
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(data, bytes) static_cast<void>(data)
#define ASAN_UNPOISON_MEMORY_REGION(data, bytes) static_cast<void>(data)
#endif

namespace fusedres {
namespace {

constexpr int64_t kPage = 4096;
constexpr int64_t kMegabyte = 1 << 20;
// A training step of ResNet-50 at batch 16 in fp32 holds 1.2 GB of outputs.
constexpr int64_t kMostByDefault = 4096 * kMegabyte;

int64_t default_bytes() {
#if defined(__linux__)
  const int64_t memory = static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
  return std::min(memory / 8, kMostByDefault);
#else
  return 0;
#endif
}

int64_t wished_bytes() {
  const char* wish = std::getenv("FUSEDRES_CPU_POOL");
  if (wish == nullptr || *wish == '\0') return default_bytes();
  char* end = nullptr;
  const long long megabytes = std::strtoll(wish, &end, 10);
  if (*end != '\0' || megabytes < 0 || megabytes > (int64_t{1} << 40) / kMegabyte)
    throw std::runtime_error(
        std::string("FUSEDRES_CPU_POOL: must be a number of megabytes, 0 or more; got ") + wish);
  return megabytes * kMegabyte;
}

}  // namespace

Pool::Pool(int64_t bytes) {
#if defined(__linux__)
  if (bytes <= 0) return;
  const int64_t whole = (bytes + kLargePage - 1) / kLargePage * kLargePage;
  void* range =
      mmap(nullptr, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (range == MAP_FAILED) return;  // a limit on virtual memory: outputs come from malloc, as elsewhere
  base_ = static_cast<char*>(range);
  bound_ = whole;
  advise_large_pages(base_, bound_);
  free_.emplace(0, bound_);
  ASAN_POISON_MEMORY_REGION(base_, bound_);
#else
  (void)bytes;
#endif
}

Pool::~Pool() {
#if defined(__linux__)
  if (base_ == nullptr) return;
  ASAN_UNPOISON_MEMORY_REGION(base_, bound_);
  munmap(base_, bound_);
#endif
}

void* Pool::take(int64_t bytes) {
  const int64_t wanted = (std::max<int64_t>(bytes, 1) + kPage - 1) / kPage * kPage;
  const std::lock_guard guard(mutex_);
  // The smallest block that has room, the first of several: what was never used is the largest, so taken
  // last.
  auto best = free_.end();
  for (auto block = free_.begin(); block != free_.end(); ++block)
    if (block->second >= wanted && (best == free_.end() || block->second < best->second)) best = block;
  if (best == free_.end()) return nullptr;
  const auto [offset, room] = *best;
  free_.erase(best);
  if (room > wanted) free_.emplace(offset + wanted, room - wanted);
  taken_.emplace(offset, wanted);
  taken_bytes_ += wanted;
  reached_ = std::max(reached_, offset + wanted);
  ASAN_UNPOISON_MEMORY_REGION(base_ + offset, bytes);
  return base_ + offset;
}

void Pool::give_back(void* data) {
  const int64_t offset = static_cast<char*>(data) - base_;
  const std::lock_guard guard(mutex_);
  const auto block = taken_.find(offset);
  if (block == taken_.end()) std::abort();  // a block given back twice would have two owners from now on
  const int64_t bytes = block->second;
  ASAN_POISON_MEMORY_REGION(data, bytes);
  taken_.erase(block);
  taken_bytes_ -= bytes;
  insert_free(offset, bytes);
}

// Joined with its free neighbours, so that the range does not end in pieces.
void Pool::insert_free(int64_t offset, int64_t bytes) {
  auto after = free_.lower_bound(offset);
  if (after != free_.end() && offset + bytes == after->first) {
    bytes += after->second;
    after = free_.erase(after);
  }
  if (after != free_.begin()) {
    const auto before = std::prev(after);
    if (before->first + before->second == offset) {
      before->second += bytes;
      return;
    }
  }
  free_.emplace(offset, bytes);
}

Pool::Usage Pool::usage() const {
  const std::lock_guard guard(mutex_);
  return {taken_bytes_, reached_, bound_};
}

Pool& output_pool() {
  static Pool* const pool = [] {
    auto* made = new Pool(wished_bytes());  // never deleted: a tensor may die after static objects do
#if defined(__linux__)
    // Data loaders fork while other threads compute.
    pthread_atfork(
        [] { output_pool().lock(); }, [] { output_pool().unlock(); }, [] { output_pool().unlock(); });
#endif
    return made;
  }();
  return *pool;
}

}  // namespace fusedres
