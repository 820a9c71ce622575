// csrc/cpu/pool.* on its own, under a sanitizer: what each line of output says is asserted by test_pool.py.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "cpu/pool.h"

namespace {

using fusedres::Pool;

constexpr int64_t kPage = 4096, kMegabyte = 1 << 20;

void require(bool holds, const char* rule) {
  if (holds) return;
  std::printf("broken: %s\n", rule);
  std::exit(1);
}

struct Held {
  unsigned char* data;
  int64_t bytes;
  unsigned char mark;
};

void check(const Held& held) {
  for (int64_t i = 0; i < held.bytes; i += 509)
    require(held.data[i] == held.mark, "a block's contents changed while it was held");
}

// Blocks of random sizes, written when taken and read before they go back.
void churn(Pool& pool, unsigned seed, int turns) {
  std::mt19937 random(seed);
  std::vector<Held> held;
  for (int turn = 0; turn < turns; ++turn) {
    if (held.size() < 6 && random() % 3 != 0) {
      const int64_t bytes = 1 + random() % (3 * kMegabyte / 2);
      auto* data = static_cast<unsigned char*>(pool.take(bytes));
      if (data == nullptr) continue;
      require(reinterpret_cast<uintptr_t>(data) % kPage == 0, "blocks are aligned to a page");
      held.push_back({data, bytes, static_cast<unsigned char>(random())});
      std::memset(data, held.back().mark, bytes);
    } else if (!held.empty()) {
      const size_t which = random() % held.size();
      check(held[which]);
      pool.give_back(held[which].data);
      held.erase(held.begin() + which);
    }
  }
  for (const Held& each : held) {
    check(each);
    pool.give_back(each.data);
  }
}

void whole_again(Pool& pool) {
  const Pool::Usage usage = pool.usage();
  require(usage.taken == 0, "nothing is held in the end");
  void* all = pool.take(usage.bound);
  require(all != nullptr, "free neighbours were joined: one block fills the range");
  require(pool.take(1) == nullptr, "a full pool gives nothing");
  pool.give_back(all);
}

void rules() {
  Pool none(0);
  require(none.take(1) == nullptr, "a pool of no bytes gives nothing");
  Pool pool(16 * kMegabyte);
  require(pool.take(16 * kMegabyte + 1) == nullptr, "what exceeds the bound is refused");
  void* large = pool.take(4 * kMegabyte);
  void* between = pool.take(1);
  void* small = pool.take(2 * kMegabyte);
  void* last = pool.take(1);
  pool.give_back(large);
  pool.give_back(small);
  require(pool.take(2 * kMegabyte) == small, "the smallest block with room is taken");
  require(pool.take(4 * kMegabyte) == large, "and used memory before new");
  require(pool.usage().reached == 6 * kMegabyte + 2 * kPage, "no new memory was reached");
  for (void* data : {large, between, small, last}) pool.give_back(data);
  whole_again(pool);
}

// Children of a process whose other thread takes and gives back all the time find a lock that nobody holds.
void forks() {
  Pool& pool = fusedres::output_pool();
  std::atomic<bool> ended{false};
  std::thread busy([&] {
    while (!ended) churn(pool, 7, 20);
  });
  for (int child = 0; child < 40; ++child) {
    const pid_t process = fork();
    if (process == 0) {
      alarm(20);  // a lock that another thread took along would wait for ever
      void* data = pool.take(kMegabyte);
      if (data == nullptr) _exit(1);
      std::memset(data, 1, kMegabyte);
      pool.give_back(data);
      _exit(0);
    }
    int status = -1;
    require(waitpid(process, &status, 0) == process && status == 0, "a forked child uses the pool");
  }
  ended = true;
  busy.join();
}

}  // namespace

int main(int count, char** arguments) {
  const std::string what = count > 1 ? arguments[1] : "";
  if (what == "rules") {
    rules();
  } else if (what == "threads") {
    Pool pool(16 * kMegabyte);
    std::vector<std::thread> threads;
    for (unsigned seed = 0; seed < 4; ++seed) threads.emplace_back([&pool, seed] { churn(pool, seed, 300); });
    for (std::thread& thread : threads) thread.join();
    whole_again(pool);
  } else if (what == "forks") {
    forks();
  } else if (what == "use-after") {
    Pool pool(kMegabyte);
    auto* data = static_cast<volatile char*>(pool.take(100));
    pool.give_back(const_cast<char*>(data));
    data[0] = 1;
  } else if (what == "beyond") {
    Pool pool(kMegabyte);
    static_cast<volatile char*>(pool.take(100))[104] = 1;
  } else if (what == "twice") {
    Pool pool(kMegabyte);
    void* data = pool.take(100);
    pool.give_back(data);
    pool.give_back(data);
  }
  std::puts("ended");
}
