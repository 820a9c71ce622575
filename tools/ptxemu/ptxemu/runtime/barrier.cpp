// Barriers of a CTA (bar, barrier) and of a cluster.
#include "internal.hpp"

#include <algorithm>

static void barrier_release(Cta *cta, Barrier &barrier) {
  for (uint32_t wid : barrier.waiters) {
    Warp &warp = cta->warps[wid];
    for (uint32_t i = 0; i < warp.group_count; i++)
      if (warp.groups[i].state == 1 + (uint32_t)(&barrier - cta->bars)) warp.groups[i].state = 0;
    warp.bar_result = barrier.op == 1 ? barrier.acc_cnt : barrier.op == 2 ? barrier.acc_and : barrier.acc_or;
    if (cta->launch->options.race) {
      uint32_t warp_count = cta->warp_count;
      std::vector<uint32_t> known(&cta->clocks[warp.wid * warp_count],
                                  &cta->clocks[warp.wid * warp_count] + warp_count);
      join_clocks(known, barrier.clocks.data(), barrier.clocks.size());
      known[warp.wid]++;
      std::copy(known.begin(), known.end(), &cta->clocks[warp.wid * warp_count]);
    }
  }
  barrier.waiters.clear();
  barrier.arrived = 0;
  barrier.expected = 0;
  barrier.acc_or = 0;
  barrier.acc_and = 1;
  barrier.acc_cnt = 0;
  barrier.clocks.clear();
  cta->worker->counters[COUNT_BARRIERS]++;
  cta->progress++;
}

void barrier_check(Cta *cta) {
  for (auto &barrier : cta->bars)
    if (!barrier.waiters.empty() || barrier.arrived) {
      uint32_t expected = barrier.expected ? barrier.expected : cta->live_threads;
      if (barrier.arrived >= expected && expected) barrier_release(cta, barrier);
    }
}

void barrier_arrive(Warp &warp, uint32_t group_index, uint32_t line) {
  Cta *cta = warp.cta;
  Group &group = warp.groups[group_index];
  if (warp.bar_id > 15) {
    pe_error(&warp, first(group.mask), line, "barrier id %u > 15", warp.bar_id);
    return;
  }
  Barrier &barrier = cta->bars[warp.bar_id];
  if (warp.bar_kind != 1)
    for (uint32_t i = 0; i < warp.group_count; i++)
      if (i != group_index && warp.groups[i].state == 1 + warp.bar_id && warp.groups[i].pc != group.pc)
        pe_error(&warp, first(group.mask), line,
                 "divergent barrier %u: lanes 0x%08x of warp %u arrive here while lanes 0x%08x wait at PTX "
                 "line %u",
                 warp.bar_id, group.mask, warp.wid, warp.groups[i].mask,
                 cta->launch->kernel->blocks[warp.groups[i].pc].line);
  uint32_t arriving = __builtin_popcount(group.mask);
  if (warp.bar_cnt) {
    uint32_t count = warp.bar_cnt;
    if (barrier.expected && barrier.expected != count)
      pe_error(&warp, first(group.mask), line, "barrier %u used with counts %u and %u", warp.bar_id,
               barrier.expected, count);
    barrier.expected = count;
    if (count % 32)
      pe_error(&warp, first(group.mask), line, "barrier count %u is not a multiple of the warp size", count);
  }
  barrier.arrived += arriving;
  if (warp.bar_kind == 2) {
    barrier.op = warp.bar_op;
    uint32_t true_lanes = warp.bar_pred & group.mask;
    barrier.acc_cnt += __builtin_popcount(true_lanes);
    barrier.acc_or |= true_lanes != 0;
    barrier.acc_and &= true_lanes == group.mask;
  }
  if (cta->launch->options.race) {
    join_clocks(barrier.clocks, &cta->clocks[warp.wid * cta->warp_count], cta->warp_count);
    if (warp.bar_kind == 1) cta->clocks[warp.wid * cta->warp_count + warp.wid]++;
  }
  if (warp.bar_kind != 1) {
    group.state = 1 + warp.bar_id;
    barrier.waiters.push_back(warp.wid);
  }
  uint32_t expected = barrier.expected ? barrier.expected : cta->live_threads;
  if (barrier.arrived >= expected) barrier_release(cta, barrier);
}

extern "C" void pe_cluster_arrive(Warp *warp, P mask) {
  Cta *leader = (*warp->cta->gang)[0];
  warp->cluster_token = leader->cluster_phase;
  leader->cluster_arrived += __builtin_popcount(mask);
  uint32_t live = 0;
  for (Cta *cta : *warp->cta->gang) live += cta->live_threads;
  if (leader->cluster_arrived >= live) {
    leader->cluster_arrived = 0;
    leader->cluster_phase++;
    leader->progress++;
  }
}

extern "C" uint32_t pe_cluster_wait(Warp *warp, P mask) {
  bool ok = (*warp->cta->gang)[0]->cluster_phase != warp->cluster_token;
  if (!ok) warp->yield = 1;
  return ok;
}
