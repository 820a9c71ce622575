#include "cpu/conv/team.h"

#include <atomic>
#include <exception>
#include <mutex>

#include "cpu/conv/shape.h"
#include "cpu/conv/shared_core.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace fusedres::conv {
namespace {

// About 0.1 ms; a wait that long means that the other thread has lost its core, perhaps to us.
constexpr int kSpins = 2000;

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

struct alignas(64) Counter {
  std::atomic<int64_t> value{0};
};

// What the threads of one run share. A thread may come at any time, or never: every chunk is claimed by
// counting, and waiting is only ever for a chunk that a running thread holds.
class Phases {
 public:
  using Work = void (*)(const void*, int64_t, int64_t, int64_t);
  Phases(const std::vector<int64_t>& chunks, int64_t threads, Work work, const void* context)
      : chunks_(chunks),
        threads_(threads),
        work_(work),
        context_(context),
        counters_(chunks.size() * (threads + 1)),
        cores_(threads) {}

  // What the first chunk that failed has thrown; to be asked when all threads have left.
  void rethrow() const {
    if (failure_ != nullptr) std::rethrow_exception(failure_);
  }

  void enter(int64_t thread) {
    SharedCore& core = SharedCore::own();
    core.begin();
    for (size_t phase = 0; phase < chunks_.size(); ++phase) {
      Counter* counters = &counters_[phase * (threads_ + 1)];
      std::atomic<int64_t>& done = counters[threads_].value;
      for (int64_t i = 0; i < threads_; ++i) {
        const int64_t owner = (thread + i) % threads_;
        const Range own = share(chunks_[phase], owner, threads_);
        std::atomic<int64_t>& claimed = counters[owner].value;
        for (int64_t chunk;
             (chunk = own.begin + claimed.fetch_add(1, std::memory_order_relaxed)) < own.end;) {
          attempt(static_cast<int64_t>(phase), chunk, thread);
          done.fetch_add(1, std::memory_order_acq_rel);
          core.between_chunks(cores_, thread);
        }
      }
      for (int spins = 0; done.load(std::memory_order_acquire) < chunks_[phase]; ++spins)
        spins < kSpins ? pause() : core.give_away();
    }
  }

 private:
  // A chunk that fails (no memory for a thread's scratch) counts as done: the others wait for it.
  void attempt(int64_t phase, int64_t chunk, int64_t thread) {
    try {
      work_(context_, phase, chunk, thread);
    } catch (...) {
      const std::lock_guard guard(failing_);
      if (failure_ == nullptr) failure_ = std::current_exception();
    }
  }

  std::mutex failing_;
  std::exception_ptr failure_;
  const std::vector<int64_t>& chunks_;
  const int64_t threads_;
  const Work work_;
  const void* const context_;
  std::vector<Counter> counters_;
  CoresOfTeam cores_;
};

}  // namespace

void Team::run_phases(const std::vector<int64_t>& chunks, PhaseWork work, const void* context) {
  if (size == 1) {
    for (size_t phase = 0; phase < chunks.size(); ++phase)
      for (int64_t chunk = 0; chunk < chunks[phase]; ++chunk)
        work(context, static_cast<int64_t>(phase), chunk, 0);
    return;
  }
  Phases phases(chunks, size, work, context);
  fork([](void* shared, int64_t thread) { static_cast<Phases*>(shared)->enter(thread); }, &phases);
  phases.rethrow();
}

}  // namespace fusedres::conv
