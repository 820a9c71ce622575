#include "cpu/conv/shared_core.h"

#if defined(__linux__)
#include <sched.h>
#include <time.h>
#else
#include <thread>
#endif

namespace fusedres::conv {

SharedCore& SharedCore::own() {
  thread_local SharedCore core;
  return core;
}

#if defined(__linux__)

namespace {

// In ns. What other turns, moves and looks did: docs/cpu.md.
constexpr int64_t kLook = 1'000'000;     // between two looks at the core's time, which cost 0.7 us
constexpr int64_t kLookShared = 50'000;  // on a shared core
constexpr int64_t kAway = 300'000;       // so long without a core: somebody else had it
constexpr int64_t kTurn = 2'000'000;     // a shared core is kept so long; Linux takes it after 1.4 to 4 ms
constexpr int64_t kShared = 50'000'000;  // a core counts as shared so long after somebody else had it
constexpr int64_t kMove = 1'000'000;     // between two moves

int64_t read(clockid_t clock) {
  timespec time;
  clock_gettime(clock, &time);
  return time.tv_sec * int64_t{1'000'000'000} + time.tv_nsec;
}

// Moves the calling thread off its team's cores, if it may run on others. Its affinity stays what it was.
void move_off(const CoresOfTeam& team) {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return;
  cpu_set_t others = allowed;
  for (const SeenCore& core : team) {
    const int taken = core.number.load(std::memory_order_relaxed);
    if (taken >= 0) CPU_CLR(taken, &others);
  }
  if (CPU_COUNT(&others) == 0) return;
  if (sched_setaffinity(0, sizeof(others), &others) == 0) sched_setaffinity(0, sizeof(allowed), &allowed);
}

}  // namespace

void SharedCore::begin() {
  time_ = read(CLOCK_MONOTONIC);
  used_ = used_at_turn_ = read(CLOCK_THREAD_CPUTIME_ID);
}

bool SharedCore::was_away() {
  const int64_t time = read(CLOCK_MONOTONIC), used = read(CLOCK_THREAD_CPUTIME_ID);
  const bool away = (time - time_) - (used - used_) > kAway;
  time_ = time;
  used_ = used;
  return away;
}

void SharedCore::between_chunks(CoresOfTeam& team, int64_t thread) {
  leave_to_team(team, thread);
  const int64_t time = read(CLOCK_MONOTONIC);
  if (time - time_ < (time < shared_until_ ? kLookShared : kLook)) return;
  if (was_away()) {
    used_at_turn_ = used_;
    shared_until_ = time_ + kShared;
  }
  if (time_ < shared_until_ && used_ - used_at_turn_ > kTurn) give_away();
}

void SharedCore::give_away() {
  sched_yield();
  if (was_away()) shared_until_ = time_ + kShared;
  used_at_turn_ = used_;
}

void SharedCore::leave_to_team(CoresOfTeam& team, int64_t thread) {
  const int core = sched_getcpu();
  // Written only when it changes: all the others read it.
  if (team[thread].number.load(std::memory_order_relaxed) != core)
    team[thread].number.store(core, std::memory_order_relaxed);
  bool shared = false;
  for (int64_t before = 0; before < thread; ++before)
    shared |= team[before].number.load(std::memory_order_relaxed) == core;
  if (!shared) return;
  const int64_t time = read(CLOCK_MONOTONIC);
  if (time < may_move_at_) return;
  may_move_at_ = time + kMove;
  move_off(team);
  team[thread].number.store(sched_getcpu(), std::memory_order_relaxed);
}

#else

void SharedCore::begin() {}
bool SharedCore::was_away() { return false; }
void SharedCore::between_chunks(CoresOfTeam&, int64_t) {}
void SharedCore::give_away() { std::this_thread::yield(); }
void SharedCore::leave_to_team(CoresOfTeam&, int64_t) {}

#endif

}  // namespace fusedres::conv
