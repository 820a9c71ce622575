// cp.async: the data is copied only when the issuing thread waits; until then the destination holds poison.
#include "internal.hpp"
#include "counting.hpp"

#include <algorithm>

extern "C" void pe_cp_async(Warp *warp, P mask, const V32 *dst, int64_t dst_offset, const V64 *src,
                            int64_t src_offset, int size, const V32 *source_bytes, P ignore, uint32_t line) {
  if (!mask) return;
  CopyState *state = (CopyState *)warp->cp;
  state->queue.emplace_back();
  AsyncCopy &copy = state->queue.back();
  copy.mask = 0;
  copy.size = size;
  copy.line = line;
  copy.is_arrival = false;
  uint64_t sources[32];
  uint32_t targets[32];
  P global_lanes = 0;
  Region *region = nullptr;
  bool one_region = true, race = launch_of(warp)->options.race;
  for (int lane : lanes(mask)) {
    uint32_t bytes = source_bytes ? lane32(*source_bytes, lane) : size;
    if (ignore >> lane & 1) bytes = 0;
    if (bytes > (uint32_t)size) {
      pe_error(warp, lane, line, "cp.async src-size %u > cp-size %d", bytes, size);
      bytes = size;
    }
    uint32_t shared_offset;
    char *target = resolve_shared(warp, lane, lane32(*dst, lane) + (uint32_t)dst_offset, size, size, line,
                                  "cp.async shared destination", nullptr, &shared_offset);
    uint64_t source = lane64(*src, lane) + src_offset;
    sources[lane] = source;
    if (!target) continue;
    targets[lane] = shared_offset;
    if (bytes) {
      Region *r;
      if (!resolve_generic(warp, lane, source, bytes, size, false, line, "cp.async global source", &r))
        bytes = 0;
      else {
        global_lanes |= 1u << lane;
        if (!region) region = r;
        else if (r != region) one_region = false;
      }
    } else if (source & (size - 1))
      pe_error(warp, lane, line, "misaligned cp.async source 0x%llx", (unsigned long long)source);
    if (race) race_access(warp, lane, shared_offset, size, true, line);
    memset(target, 0xff, size);
    copy.mask |= 1u << lane;
    copy.dst[lane] = shared_offset;
    copy.src[lane] = source;
    copy.source_bytes[lane] = bytes;
    copy.group[lane] = state->committed[lane];
  }
  if (global_lanes) {
    count_global(warp, sources, global_lanes, size, false, false, one_region ? region : nullptr);
  }
  if (launch_of(warp)->options.count && copy.mask) {
    worker_of(warp)->counters[COUNT_ST_SHARED_REQUESTS]++;
    worker_of(warp)->counters[COUNT_ST_SHARED_WAVEFRONTS] += waves(targets, copy.mask, size);
  }
}

static void cp_apply(Warp *warp, AsyncCopy &copy, P mask) {
  if (copy.is_arrival) {
    for (int lane : lanes(mask)) mbar_complete(warp->cta, copy.dst[lane], 1, 0, warp, copy.line);
    copy.mask &= ~mask;
    return;
  }
  for (int lane : lanes(mask)) {
    char *target = warp->cta->smem + copy.dst[lane];
    if (copy.source_bytes[lane]) memcpy(target, (void *)copy.src[lane], copy.source_bytes[lane]);
    if (copy.source_bytes[lane] < copy.size)
      memset(target + copy.source_bytes[lane], 0, copy.size - copy.source_bytes[lane]);
    if (launch_of(warp)->options.race) race_access(warp, lane, copy.dst[lane], copy.size, true, copy.line);
  }
  copy.mask &= ~mask;
}

extern "C" void pe_cp_commit(Warp *warp, P mask) {
  CopyState *state = (CopyState *)warp->cp;
  for (int lane : lanes(mask)) state->committed[lane]++;
}

static void cp_trim(CopyState *state) {
  state->queue.erase(std::remove_if(state->queue.begin(), state->queue.end(),
                                    [](const AsyncCopy &copy) { return !copy.mask; }),
                     state->queue.end());
}

extern "C" void pe_cp_wait(Warp *warp, P mask, uint32_t pending, uint32_t line) {
  CopyState *state = (CopyState *)warp->cp;
  for (auto &copy : state->queue) {
    if (copy.is_arrival) continue;
    P due = 0;
    for (int lane : lanes(copy.mask & mask)) {
      if (copy.group[lane] + pending < state->committed[lane]) due |= 1u << lane;
    }
    if (due) cp_apply(warp, copy, due);
  }
  cp_trim(state);
}

extern "C" void pe_cp_wait_all(Warp *warp, P mask, uint32_t line) {
  CopyState *state = (CopyState *)warp->cp;
  for (auto &copy : state->queue)
    if (!copy.is_arrival && (copy.mask & mask)) cp_apply(warp, copy, copy.mask & mask);
  cp_trim(state);
}

void cp_finish_lane(Warp *warp, P mask) {
  CopyState *state = (CopyState *)warp->cp;
  if (state->queue.empty()) return;
  for (auto &copy : state->queue)
    if (copy.mask & mask) cp_apply(warp, copy, copy.mask & mask);
  cp_trim(state);
}

extern "C" void pe_cp_mbar_arrive(Warp *warp, P mask, const V32 *bar, int64_t offset, int noinc,
                                  uint32_t line) {
  CopyState *state = (CopyState *)warp->cp;
  state->queue.emplace_back();
  AsyncCopy &copy = state->queue.back();
  copy.mask = mask;
  copy.is_arrival = true;
  copy.line = line;
  for (int lane : lanes(mask)) {
    copy.dst[lane] = lane32(*bar, lane) + (uint32_t)offset;
    if (!noinc) {
      auto found = warp->cta->mbarriers.find(copy.dst[lane]);
      if (found != warp->cta->mbarriers.end()) found->second.pending++;
    }
  }
}

void cp_flush_markers(Cta *c) {
  for (auto &warp : c->warps) {
    CopyState *state = (CopyState *)warp.cp;
    int last_arrival = -1;
    for (size_t i = 0; i < state->queue.size(); i++)
      if (state->queue[i].is_arrival) last_arrival = i;
    if (last_arrival < 0) continue;
    for (int i = 0; i <= last_arrival; i++) {
      P mask = state->queue[i].mask;
      if (!state->queue[i].is_arrival) {
        P arriving = 0;
        for (int j = i; j <= last_arrival; j++)
          if (state->queue[j].is_arrival) arriving |= state->queue[j].mask;
        mask &= arriving;
      }
      if (mask) cp_apply(&warp, state->queue[i], mask);
    }
    cp_trim(state);
    c->progress++;
  }
}
