// Runs warps: convergence within a warp, turns between warps, deadlocks.
#include "internal.hpp"

#include <algorithm>
#include <random>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

enum {
  MAX_BYPASS = 20000,         // times that lanes waiting to converge may be passed over by spinning ones
  COOPERATIVE_QUANTUM = 4096, // blocks per turn where grid.sync() spins
  MAX_SEEDED_QUANTUM = 64,    // blocks per turn in a randomised schedule
  MAX_IDLE_ROUNDS = 3000,     // rounds in which every warp only waited: a deadlock
  MAX_REPORTED_GROUPS = 12,   // of lanes, in a deadlock report
  SHARED_WINDOW = 1 << 20,    // alignment of a CTA's shared memory, more than it can have
};

// ---------------------------------------------------------------- lanes of a warp
// The lanes of a warp form groups, each at its own block; groups that meet at a block merge.

static void drop_group(Warp &warp, uint32_t index) { warp.groups[index] = warp.groups[--warp.group_count]; }

static void add_group(Warp &warp, uint32_t pc, P mask) {
  warp.groups[warp.group_count++] = Group{pc, mask, 0};
}

static void exit_lanes(Warp &warp, uint32_t index) {
  P mask = warp.groups[index].mask;
  cp_finish_lane(&warp, mask);
  warp.live &= ~mask;
  if (!warp.live) bulk_finish(&warp);
  warp.cta->live_threads -= __builtin_popcount(mask);
  warp.cta->progress++;
  drop_group(warp, index);
  barrier_check(warp.cta);
}

static void exit_groups(Warp &warp) {
  for (int i = (int)warp.group_count - 1; i >= 0; i--)
    if (warp.groups[i].pc == PC_EXIT) exit_lanes(warp, i);
}

static void merge_groups(Warp &warp) {
  for (uint32_t i = 0; i < warp.group_count; i++) {
    if (warp.groups[i].state) continue;
    for (uint32_t j = i + 1; j < warp.group_count;) {
      if (!warp.groups[j].state && warp.groups[j].pc == warp.groups[i].pc) {
        warp.groups[i].mask |= warp.groups[j].mask;
        drop_group(warp, j);
      } else j++;
    }
  }
}

// The group to run: the lowest block first, so that lanes meet again after a branch or loop; blocks with
// warp-synchronous instructions only when no other group can run.  -1: all groups wait at barriers.
static int choose_group(Warp &warp, const BlockDesc *blocks) {
  int best = -1, converging = -1;
  for (uint32_t i = 0; i < warp.group_count; i++) {
    const Group &group = warp.groups[i];
    if (group.state) continue;
    int &lowest = blocks[group.pc].flags & BF_CONV ? converging : best;
    if (lowest < 0 || group.pc < warp.groups[lowest].pc) lowest = i;
  }
  if (best < 0) return converging;
  if (converging >= 0 && ++warp.bypass > MAX_BYPASS) { // the others spin on what these lanes would do
    warp.bypass = 0;
    return converging;
  }
  return best;
}

// brx.idx: every lane goes where the block's table sent it
static void split_by_table(Warp &warp, uint32_t index) {
  P left = warp.groups[index].mask;
  drop_group(warp, index);
  while (left) {
    uint32_t target = warp.brx[first(left)];
    P together = 0;
    for (int lane : lanes(left))
      if (warp.brx[lane] == target) together |= 1u << lane;
    left &= ~together;
    add_group(warp, target, together);
  }
  exit_groups(warp);
}

// run one block for a group and move the group on
static void run_block(Warp &warp, uint32_t index, Worker *worker, const BlockDesc *blocks) {
  Group &group = warp.groups[index];
  const BlockDesc &block = blocks[group.pc];
  const P mask = group.mask;
  worker->block_runs[group.pc]++;
  worker->block_lanes[group.pc] += __builtin_popcount(mask);
  uint64_t result = block.fn(&warp, mask);
  uint32_t next = (uint32_t)result;
  P taken = (P)(result >> 32);
  if (next == PC_MULTI) {
    split_by_table(warp, index);
  } else if (!taken) {
    group.pc = next;
    if (next == PC_EXIT) exit_lanes(warp, index);
    else if (block.flags & BF_BAR) barrier_arrive(warp, index, block.line);
  } else if (taken == mask) {
    group.pc = block.target;
    if (group.pc == PC_EXIT) exit_lanes(warp, index);
  } else {
    group.pc = next;
    group.mask = mask & ~taken;
    add_group(warp, block.target, taken);
    exit_groups(warp);
  }
}

// run a warp until it blocks, yields or has used its turn; returns how many blocks it ran
static uint64_t run_warp(Warp &warp, uint32_t quantum) {
  Launch *launch = warp.cta->launch;
  const BlockDesc *blocks = launch->kernel->blocks;
  uint64_t ran = 0;
  warp.yield = 0;
  while (ran < quantum && warp.group_count && !warp.yield && !launch->abort) {
    int index = 0;
    if (warp.group_count > 1) {
      merge_groups(warp);
      index = choose_group(warp, blocks);
      if (index < 0) break;
    } else if (warp.groups[0].state) break;
    run_block(warp, index, warp.cta->worker, blocks);
    ran++;
  }
  return ran;
}

// ---------------------------------------------------------------- deadlocks

static void report_deadlock(Cta *cta, const char *why) {
  const BlockDesc *blocks = cta->launch->kernel->blocks;
  std::string where;
  int reported = 0;
  Warp *stuck = nullptr;
  char text[200];
  for (auto &warp : cta->warps)
    for (uint32_t i = 0; i < warp.group_count; i++) {
      const Group &group = warp.groups[i];
      if (!stuck) stuck = &warp;
      if (reported++ >= MAX_REPORTED_GROUPS) continue;
      uint32_t line = blocks[group.pc].line;
      if (group.state)
        snprintf(text, sizeof text, " [warp %u lanes 0x%08x: barrier %u, before line %u]", warp.wid,
                 group.mask, group.state - 1, line);
      else snprintf(text, sizeof text, " [warp %u lanes 0x%08x: line %u]", warp.wid, group.mask, line);
      where += text;
    }
  if (stuck)
    pe_error(stuck, -1, blocks[stuck->groups[0].pc].line, "deadlock (%s):%s", why,
             where.substr(0, 480).c_str());
  cta->launch->abort = true;
}

static void report_first_unfinished(const std::vector<Cta *> &team, const char *why) {
  for (Cta *cta : team)
    if (!cta->done) return report_deadlock(cta, why);
}

// ---------------------------------------------------------------- CTAs

namespace {
// the CTAs that one thread runs side by side: a cluster, or all clusters of a cooperative launch
class Team {
public:
  explicit Team(Worker *worker)
      : worker(worker), launch(worker->launch),
        cluster_size(launch->cluster[0] * launch->cluster[1] * launch->cluster[2]),
        rng(launch->options.seed + 17) {
    uint64_t cta_count = (uint64_t)launch->grid[0] * launch->grid[1] * launch->grid[2];
    cluster_count = cta_count / cluster_size;
    clusters_together = launch->options.cooperative ? cluster_count : 1;
    gangs.resize(clusters_together);
    for (uint64_t i = 0; i < clusters_together * cluster_size; i++) add_cta(gangs[i / cluster_size]);
  }

  ~Team() {
    for (Cta *cta : ctas) {
      munmap(cta->smem_map, 2 * SHARED_WINDOW);
      free(cta->rf_mem);
      free(cta->local);
      delete cta;
    }
  }

  Team(const Team &) = delete;
  Team &operator=(const Team &) = delete;

  // take the next clusters of the grid; false when there are none
  bool start() {
    uint64_t first_cluster = launch->next_cta.fetch_add(clusters_together);
    if (first_cluster >= cluster_count || launch->abort) return false;
    for (uint32_t i = 0; i < ctas.size(); i++)
      start_cta(ctas[i], cta_index(first_cluster + i / cluster_size, i % cluster_size), i % cluster_size);
    worker->counters[COUNT_CTAS] += ctas.size();
    return true;
  }

  // give every warp turns until all CTAs have ended, or nothing moves any more
  void run() {
    uint32_t idle_rounds = 0;
    for (;;) {
      uint64_t before = progress();
      Round round = run_round();
      worker->blocks_run += round.blocks;
      if (launch->abort || !round.alive) return;
      if (worker->blocks_run > launch->options.max_blocks)
        return report_deadlock(ctas[0], "block-execution limit reached: endless loop?");
      for (Cta *cta : ctas) async_progress(cta);
      bool moved = progress() != before;
      if (!round.blocks && !moved) return report_first_unfinished(ctas, "no warp can run");
      idle_rounds = round.worked || moved ? 0 : idle_rounds + 1;
      if (idle_rounds > MAX_IDLE_ROUNDS)
        return report_first_unfinished(ctas, "all warps wait on mbarriers or spin");
    }
  }

private:
  struct Round {
    uint64_t blocks = 0;                // basic blocks run
    bool alive = false, worked = false; // a CTA is left; a warp did more than wait
  };

  void add_cta(std::vector<Cta *> &gang) {
    Cta *cta = new Cta();
    cta->launch = launch;
    cta->worker = worker;
    cta->gang = &gang;
    cta->local = nullptr;
    cta->local_size = 0;
    cta->smem_map =
        (char *)mmap(nullptr, 2 * SHARED_WINDOW, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t aligned = ((uint64_t)cta->smem_map + SHARED_WINDOW - 1) & ~(uint64_t)(SHARED_WINDOW - 1);
    cta->smem = (char *)aligned;
    ctas.push_back(cta);
    gang.push_back(cta);
  }

  uint64_t cta_index(uint64_t cluster, uint32_t rank) const {
    const uint32_t *size = launch->cluster;
    uint64_t columns = launch->grid[0] / size[0], rows = launch->grid[1] / size[1];
    uint64_t x = cluster % columns * size[0] + rank % size[0];
    uint64_t y = cluster / columns % rows * size[1] + rank / size[0] % size[1];
    uint64_t z = cluster / columns / rows * size[2] + rank / size[0] / size[1];
    return x + launch->grid[0] * (y + launch->grid[1] * z);
  }

  uint64_t progress() const {
    uint64_t sum = 0;
    for (Cta *cta : ctas) sum += cta->progress;
    return sum;
  }

  void order_warps(uint32_t count) {
    bool random = launch->options.seed != 0;
    if (order.size() == count && !random) return;
    order.resize(count);
    for (uint32_t i = 0; i < count; i++) order[i] = i;
    if (random) std::shuffle(order.begin(), order.end(), rng);
  }

  uint32_t quantum() {
    if (launch->options.seed) return 1 + rng() % MAX_SEEDED_QUANTUM;
    uint32_t given = launch->options.quantum;
    return launch->options.cooperative ? std::min<uint32_t>(given, COOPERATIVE_QUANTUM) : given;
  }

  Round run_round() {
    Round round;
    for (Cta *cta : ctas) {
      if (cta->done) continue;
      order_warps(cta->warp_count);
      for (uint32_t i : order) {
        Warp &warp = cta->warps[i];
        uint64_t blocks = run_warp(warp, quantum());
        round.blocks += blocks;
        round.worked |= blocks && !warp.yield;
        if (launch->abort) return round;
      }
      cta->done = !cta->live_threads;
      round.alive |= !cta->done;
    }
    return round;
  }

  Worker *worker;
  Launch *launch;
  uint32_t cluster_size;
  uint64_t cluster_count, clusters_together;
  std::vector<std::vector<Cta *>> gangs; // the CTAs of each cluster in flight
  std::vector<Cta *> ctas;
  std::vector<uint32_t> order;
  std::mt19937 rng;
};
} // namespace

void run_worker(Worker *worker) {
  Team team(worker);
  while (team.start()) team.run();
}
