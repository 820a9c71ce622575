// The threads of a call, and how they share out work that comes in phases.
#pragma once

#include <cstdint>
#include <vector>

namespace fusedres::conv {

// A phase begins when the one before has ended; its chunks are done at once, in any order, by any thread.
class Team {
 public:
  explicit Team(int64_t size) : size(size) {}
  virtual ~Team() = default;

  // Do work(phase, chunk, thread) for every chunk in [0, chunks[phase]) of every phase; no two chunks are
  // done under one `thread` at a time. A thread takes first the chunks at its own place in the order, so that
  // it mostly reads what it wrote in the phase before, then those that others have not begun: a core that is
  // slowed down by a neighbour costs the others the chunk it holds, and these get small (pieces.h).
  template <class Work>
  void run(const std::vector<int64_t>& chunks, const Work& work) {
    run_phases(
        chunks,
        [](const void* context, int64_t phase, int64_t chunk, int64_t thread) {
          (*static_cast<const Work*>(context))(phase, chunk, thread);
        },
        &work);
  }

  const int64_t size;

 protected:
  // Call enter(context, thread) once for every thread in [0, size): at once where it can, one after the other
  // where it cannot; both are right.
  virtual void fork(void (*enter)(void* context, int64_t thread), void* context) = 0;

 private:
  using PhaseWork = void (*)(const void* context, int64_t phase, int64_t chunk, int64_t thread);
  void run_phases(const std::vector<int64_t>& chunks, PhaseWork work, const void* context);
};

}  // namespace fusedres::conv
