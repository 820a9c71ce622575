// mbarrier: asynchronous barriers in shared memory.
#include "internal.hpp"

#include <algorithm>

static Mbarrier *mbar_at(Warp *warp, Cta *cta, int lane, uint32_t offset, uint32_t line) {
  auto found = cta->mbarriers.find(offset);
  if (found == cta->mbarriers.end()) {
    pe_error(warp, lane, line, "mbarrier at shared offset %u used before mbarrier.init", offset);
    return nullptr;
  }
  return &found->second;
}

static Cta *bar_cta(Warp *warp, uint32_t address) {
  uint32_t rank = address >> 24;
  return rank && rank <= warp->cta->gang->size() ? (*warp->cta->gang)[rank - 1] : warp->cta;
}

static void mbar_phase(Cta *cta, Mbarrier &barrier) {
  if (barrier.pending == 0 && barrier.tx == 0) {
    barrier.phase++;
    barrier.pending = barrier.expected;
    cta->progress++;
  }
}

bool mbar_complete(Cta *cta, uint32_t offset, uint32_t arrivals, int64_t tx, Warp *warp, uint32_t line) {
  auto found = cta->mbarriers.find(offset);
  if (found == cta->mbarriers.end()) {
    if (warp) pe_error(warp, -1, line, "mbarrier at shared offset %u used before mbarrier.init", offset);
    return false;
  }
  Mbarrier &barrier = found->second;
  if (arrivals > barrier.pending) {
    if (warp)
      pe_error(warp, -1, line, "mbarrier at shared offset %u: more arrivals than the expected count %u",
               offset, barrier.expected);
    return false;
  }
  barrier.pending -= arrivals;
  barrier.tx += tx;
  if (warp && cta->launch->options.race && warp->cta == cta) {
    join_clocks(barrier.clocks, &cta->clocks[warp->wid * cta->warp_count], cta->warp_count);
    cta->clocks[warp->wid * cta->warp_count + warp->wid]++;
  }
  cta->progress++;
  mbar_phase(cta, barrier);
  return true;
}

extern "C" void pe_mbar_init(Warp *warp, P mask, const V32 *base, int64_t offset, const V32 *counts,
                             uint32_t line) {
  for (int lane : lanes(mask)) {
    uint32_t shared_offset;
    Cta *cta;
    if (!resolve_shared(warp, lane, lane32(*base, lane) + (uint32_t)offset, 8, 8, line, "mbarrier.init", &cta,
                        &shared_offset))
      continue;
    Mbarrier barrier;
    barrier.expected = barrier.pending = lane32(*counts, lane);
    if (!barrier.expected) pe_error(warp, lane, line, "mbarrier.init with count 0");
    cta->mbarriers[shared_offset] = barrier;
  }
}

extern "C" void pe_mbar_inval(Warp *warp, P mask, const V32 *base, int64_t offset, uint32_t line) {
  for (int lane : lanes(mask)) {
    uint32_t address = lane32(*base, lane) + (uint32_t)offset;
    bar_cta(warp, address)->mbarriers.erase(address & 0xffffff);
  }
}

extern "C" void pe_mbar_arrive(Warp *warp, P mask, const V32 *base, int64_t offset, int kind,
                               const V32 *counts, V64 *state, uint32_t line) {
  for (int lane : lanes(mask)) {
    uint32_t address = lane32(*base, lane) + (uint32_t)offset, count = counts ? lane32(*counts, lane) : 1;
    Cta *cta = bar_cta(warp, address);
    address &= 0xffffff;
    Mbarrier *barrier = mbar_at(warp, cta, lane, address, line);
    if (!barrier) continue;
    if (state) ((uint64_t *)state)[lane] = barrier->phase;
    switch (kind) {
    case MBAR_ARRIVE: mbar_complete(cta, address, count, 0, warp, line); break;
    case MBAR_ARRIVE_DROP:
      barrier->expected -= count;
      mbar_complete(cta, address, count, 0, warp, line);
      break;
    case MBAR_ARRIVE_EXPECT_TX:
      barrier->tx += count;
      mbar_complete(cta, address, 1, 0, warp, line);
      break;
    case MBAR_EXPECT_TX: barrier->tx += count; break;
    case MBAR_COMPLETE_TX:
      barrier->tx -= count;
      mbar_phase(cta, *barrier);
      break;
    }
  }
}

extern "C" P pe_mbar_test(Warp *warp, P mask, const V32 *base, int64_t offset, int parity, const V64 *phases,
                          int is_try, uint32_t line) {
  P done = 0;
  for (int lane : lanes(mask)) {
    uint32_t address = lane32(*base, lane) + (uint32_t)offset;
    Cta *cta = bar_cta(warp, address);
    Mbarrier *barrier = mbar_at(warp, cta, lane, address & 0xffffff, line);
    if (!barrier) {
      done |= 1u << lane;
      continue;
    }
    uint64_t phase = lane64(*phases, lane);
    bool ok = parity ? (barrier->phase & 1) != (phase & 1) : barrier->phase != (uint32_t)phase;
    if (ok) {
      done |= 1u << lane;
      if (cta == warp->cta && cta->launch->options.race && !barrier->clocks.empty()) {
        std::vector<uint32_t> known(&cta->clocks[warp->wid * cta->warp_count],
                                    &cta->clocks[warp->wid * cta->warp_count] + cta->warp_count);
        uint32_t mine = known[warp->wid];
        join_clocks(known, barrier->clocks.data(), barrier->clocks.size());
        known[warp->wid] = mine;
        std::copy(known.begin(), known.end(), &cta->clocks[warp->wid * cta->warp_count]);
      }
    }
  }
  if (done != mask) warp->yield = 1;
  return done;
}
