#include "cpu/conv/images.h"

#include <algorithm>
#include <set>

#include "cpu/conv/memory.h"
#include "cpu/conv/pieces.h"

namespace fusedres::conv {
namespace {

// A thread takes a fraction of its images at most, so that their activations stay near.
constexpr int64_t kGroupsOfThread = 4;

// A thread that works by itself.
class Alone : public Team {
 public:
  Alone() : Team(1) {}

 protected:
  void fork(void (*enter)(void*, int64_t), void* context) override { enter(context, 0); }
};

}  // namespace

void share_images(
    int64_t images, int64_t most, Team& team,
    const std::function<int64_t(int64_t images, int64_t threads)>& bytes_of,
    const std::function<void(Range images, char* memory, Team& team)>& run) {
  const int64_t alone = images / team.size * team.size;
  if (alone > 0) {
    const int64_t group = std::min(ceil_div(alone, kGroupsOfThread * team.size), most);
    const int64_t parts = piece_count(team.size);
    // Fewer images may need more: Winograd's blocks of patches are as even as they can be.
    std::set<int64_t> counts;
    for (int64_t part = 0; part < parts; ++part) {
      const int64_t count = piece(alone, part, team.size).size();
      for (const int64_t now : {std::min(group, count), count % group})
        if (now > 0) counts.insert(now);
    }
    int64_t bytes = 0;
    for (const int64_t now : counts) bytes = std::max(bytes, bytes_of(now, 1));
    char* memory = scratch_memory(bytes * team.size);
    team.run({parts}, [&](int64_t, int64_t part, int64_t thread) {
      Alone one;
      const Range own = piece(alone, part, team.size);
      for (int64_t first = own.begin; first < own.end; first += group)
        run({first, std::min(first + group, own.end)}, memory + thread * bytes, one);
    });
  }
  if (alone < images) run({alone, images}, scratch_memory(bytes_of(images - alone, team.size)), team);
}

}  // namespace fusedres::conv
