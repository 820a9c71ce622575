// How a team's threads get on with other processes' on their cores.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

namespace fusedres::conv {

// The core that a thread was last seen on; -1 before it was.
struct SeenCore {
  std::atomic<int> number{-1};
};
using CoresOfTeam = std::vector<SeenCore>;

// What a thread knows of its core. When the system gives a core to another process it is for milliseconds,
// and the team waits for the chunk that the thread then holds. So between two chunks, holding none, a thread
// gives a shared core away before it is taken; and of two threads of a team on one core, which halves the
// speed of all, one moves to another.
class SharedCore {
 public:
  // The calling thread's.
  static SharedCore& own();

  // To be called when the thread begins: since it last looked it may have slept.
  void begin();

  // To be called between two chunks. `team` is as long as threads are, `thread` the caller's place there.
  void between_chunks(CoresOfTeam& team, int64_t thread);

  void give_away();

 private:
  // Looks at the clocks: is it long since the thread last did, and it had not the core meanwhile?
  bool was_away();
  void leave_to_team(CoresOfTeam& team, int64_t thread);

  // All in ns. When the thread last looked: the time, and how much of cores' time it had used.
  int64_t time_ = 0, used_ = 0;
  int64_t used_at_turn_ = 0;  // when it last got the core
  int64_t shared_until_ = 0;  // the core counts as shared
  int64_t may_move_at_ = 0;
};

}  // namespace fusedres::conv
