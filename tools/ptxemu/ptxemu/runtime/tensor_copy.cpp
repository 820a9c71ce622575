// Bulk and tensor (TMA) copies.
// Loads run when the scheduler has let every warp advance as far as it can (async_progress); until then the
// destination is poison.  Stores run at their wait.
#include "internal.hpp"

#include <algorithm>

static bool load_map(Warp *warp, P mask, const V64 *operand, int64_t offset, TensorMap &map, uint32_t line) {
  uint64_t address = lane64(*operand, first(mask)) + offset;
  if (address & 63) {
    pe_error(warp, first(mask), line, "tensor map address 0x%llx is not 64-byte aligned",
             (unsigned long long)address);
    return false;
  }
  char *memory =
      resolve_generic(warp, first(mask), address, sizeof(TensorMap), 1, false, line, "tensor map read");
  if (!memory) return false;
  memcpy(&map, memory, sizeof map);
  if (map.magic != TENSOR_MAP_MAGIC) {
    pe_error(warp, first(mask), line,
             "not a tensor map (build it with cuTensorMapEncode* or ptxemu.tensormap)");
    return false;
  }
  return true;
}

static uint32_t box_bytes(const TensorMap &map) {
  uint32_t bytes = map.element_bytes;
  if (map.im2col) return bytes * map.channels * map.pixels;
  for (int i = 0; i < map.rank; i++)
    bytes *= (map.box[i] + map.element_stride[i] - 1) / map.element_stride[i];
  return bytes;
}

// visit every element row of the box: f(smem offset, element coordinates, count along dim 0)
template <class F>
static void visit(const TensorMap &map, const int32_t *origin, const uint16_t *offsets, F f) {
  if (map.im2col) {
    int spatial = map.rank - 2;
    int32_t pixel[3];
    int32_t image = origin[map.rank - 1];
    for (int i = 0; i < spatial; i++) pixel[i] = origin[i + 1];
    for (uint32_t i = 0; i < map.pixels; i++) {
      int32_t element[5];
      element[0] = origin[0];
      for (int k = 0; k < spatial; k++) element[k + 1] = pixel[k] + offsets[k];
      element[map.rank - 1] = image;
      f(i * map.channels * map.element_bytes, element, (int)map.channels);
      int k = 0;
      for (; k < spatial; k++) {
        pixel[k] += map.element_stride[k + 1];
        if (pixel[k] < (int64_t)map.dim[k + 1] + map.upper[k]) break;
        pixel[k] = map.lower[k];
      }
      if (k == spatial) image++;
    }
    return;
  }
  uint32_t size[5] = {1, 1, 1, 1, 1};
  for (int i = 0; i < map.rank; i++)
    size[i] = (map.box[i] + map.element_stride[i] - 1) / map.element_stride[i];
  uint32_t offset = 0;
  for (uint32_t i4 = 0; i4 < size[4]; i4++)
    for (uint32_t i3 = 0; i3 < size[3]; i3++)
      for (uint32_t i2 = 0; i2 < size[2]; i2++)
        for (uint32_t i1 = 0; i1 < size[1]; i1++) {
          int32_t element[5] = {origin[0], origin[1] + (int)(i1 * map.element_stride[1]),
                                origin[2] + (int)(i2 * map.element_stride[2]),
                                origin[3] + (int)(i3 * map.element_stride[3]),
                                origin[4] + (int)(i4 * map.element_stride[4])};
          f(offset, element, (int)size[0]);
          offset += size[0] * map.element_bytes;
        }
}

static bool inside(const TensorMap &map, const int32_t *element) {
  for (int i = 1; i < map.rank; i++)
    if (element[i] < 0 || (uint64_t)element[i] >= map.dim[i]) return false;
  return true;
}

static uint64_t row_addr(const TensorMap &map, const int32_t *element) {
  uint64_t address = map.addr;
  for (int i = 1; i < map.rank; i++) address += map.stride[i - 1] * (uint64_t)element[i];
  return address;
}

static void mark(Cta *cta, uint64_t address, uint32_t bytes, bool write) {
  if (!bytes) return;
  Region *region = find_region(cta->launch, address, bytes);
  if (!region) return;
  uint8_t *sectors = write ? region->written_sectors : region->read_sectors;
  if (sectors)
    memset(sectors + ((address >> 5) - (region->lo >> 5)), 1,
           ((address + bytes - 1) >> 5) - (address >> 5) + 1);
}

static void run_load(Cta *src, BulkLoad &load) {
  std::vector<Cta *> dst;
  if (load.multicast) {
    for (size_t i = 0; i < src->gang->size(); i++)
      if (load.multicast >> i & 1) dst.push_back((*src->gang)[i]);
  } else {
    uint32_t rank = load.shared_offset >> 24;
    dst.push_back(rank ? (*src->gang)[rank - 1] : src);
  }
  Warp *warp = &src->warps[load.wid];
  uint32_t shared_offset = load.shared_offset & 0xffffff, barrier_offset = load.barrier & 0xffffff;
  for (Cta *target : dst) {
    if (load.kind == 0) {
      memcpy(target->smem + shared_offset, (void *)load.address, load.bytes);
      mark(src, load.address, load.bytes, false);
    } else {
      const TensorMap &map = load.map;
      bool ok = true;
      visit(map, load.coordinates, load.im2col_offsets, [&](uint32_t off, const int32_t *element, int n) {
        bool row_inside = inside(map, element);
        uint64_t row = row_addr(map, element);
        int element_bytes = map.element_bytes, step = map.im2col ? 1 : map.element_stride[0];
        if (row_inside && step == 1 && element[0] >= 0 && (uint64_t)element[0] + n <= map.dim[0] &&
            n * element_bytes % 16 == 0) { // whole row valid: 16-byte pieces
          uint64_t address = row + (uint64_t)element[0] * element_bytes;
          if (!find_region(src->launch, address, n * element_bytes)) {
            if (ok)
              pe_error(warp, -1, load.line, "tensor load reads [0x%llx, +%d) outside any allocation",
                       (unsigned long long)address, n * element_bytes);
            ok = false;
            return;
          }
          mark(src, address, n * element_bytes, false);
          for (int b = 0; b < n * element_bytes; b += 16)
            memcpy(target->smem + swizzle_address(shared_offset + off + b, map.swizzle),
                   (void *)(address + b), 16);
          return;
        }
        for (int i = 0; i < n; i++) {
          int64_t x = (int64_t)element[0] + (int64_t)i * step;
          uint32_t position = swizzle_address(shared_offset + off + i * element_bytes, map.swizzle);
          char *destination = target->smem + position;
          bool valid = row_inside && x >= 0 && (uint64_t)x < map.dim[0];
          if (valid) {
            uint64_t address = row + x * element_bytes;
            if (i == 0 || i == n - 1) {
              if (!find_region(src->launch, address, element_bytes)) {
                if (ok)
                  pe_error(warp, -1, load.line, "tensor load reads 0x%llx outside any allocation",
                           (unsigned long long)address);
                ok = false;
              } else if (i == 0)
                mark(src, address, std::min<int64_t>(n, map.dim[0] - x) * element_bytes, false);
            }
            if (ok) memcpy(destination, (void *)address, element_bytes);
          } else if (map.nan_out_of_bounds) memset(destination, 0xff, element_bytes);
          else memset(destination, 0, element_bytes);
        }
      });
    }
    auto barrier = target->mbarriers.find(barrier_offset);
    if (barrier == target->mbarriers.end()) {
      pe_error(warp, -1, load.line, "bulk copy signals an mbarrier at offset %u that was not initialised",
               barrier_offset);
      continue;
    }
    if (target->launch->options.race && target == src)
      join_clocks(barrier->second.clocks, load.clocks.data(), load.clocks.size());
    barrier->second.tx -= load.bytes;
    if (barrier->second.pending == 0 && barrier->second.tx == 0) {
      barrier->second.phase++;
      barrier->second.pending = barrier->second.expected;
    }
    target->progress++;
  }
  src->worker->counters[COUNT_TMA_BYTES] += load.bytes;
  src->progress++;
}

void async_progress(Cta *cta) {
  cp_flush_markers(cta);
  if (cta->async.empty()) return;
  std::vector<BulkLoad> loads;
  loads.swap(cta->async);
  for (auto &load : loads) run_load(cta, load);
}

static void enqueue(Warp *warp, P mask, BulkLoad &load, const V32 *dst, int64_t dst_offset,
                    const V32 *barrier, int64_t barrier_offset, const V32 *multicast, uint32_t align) {
  int lane = first(mask);
  load.wid = warp->wid;
  load.shared_offset = lane32(*dst, lane) + (uint32_t)dst_offset;
  load.barrier = lane32(*barrier, lane) + (uint32_t)barrier_offset;
  load.multicast = multicast ? lane32(*multicast, lane) & 0xffff : 0;
  Cta *cta;
  uint32_t shared_offset;
  char *memory = resolve_shared(warp, lane, load.shared_offset, load.bytes, align, load.line,
                                "bulk copy destination", &cta, &shared_offset);
  if (!memory || !resolve_shared(warp, lane, load.barrier, 8, 8, load.line, "bulk copy mbarrier")) return;
  memset(memory, 0xff, load.bytes);
  if (launch_of(warp)->options.race) {
    if (cta == warp->cta) race_access(warp, lane, shared_offset, load.bytes, true, load.line);
    load.clocks.assign(&warp->cta->clocks[warp->wid * warp->cta->warp_count],
                       &warp->cta->clocks[warp->wid * warp->cta->warp_count] + warp->cta->warp_count);
    warp->cta->clocks[warp->wid * warp->cta->warp_count + warp->wid]++;
  }
  warp->cta->async.push_back(load);
}

static bool one_lane(Warp *warp, P mask, uint32_t line, const char *what) {
  if (!mask) return false;
  if (mask & (mask - 1))
    pe_error(warp, first(mask), line, "%s issued by %d lanes of a warp: the copy would run once per lane",
             what, __builtin_popcount(mask));
  return true;
}

extern "C" void pe_bulk_g2s(Warp *warp, P mask, const V32 *dst, int64_t dst_offset, const V64 *src,
                            int64_t src_offset, const V32 *size, const V32 *barrier, int64_t barrier_offset,
                            const V32 *multicast, uint32_t line) {
  for (int lane : lanes(mask)) {
    BulkLoad load;
    load.kind = 0;
    load.line = line;
    load.bytes = lane32(*size, lane);
    load.address = lane64(*src, lane) + src_offset;
    if (load.bytes & 15) {
      pe_error(warp, lane, line, "cp.async.bulk size %u is not a multiple of 16", load.bytes);
      continue;
    }
    if (!load.bytes ||
        !resolve_generic(warp, lane, load.address, load.bytes, 16, false, line, "cp.async.bulk source"))
      continue;
    enqueue(warp, 1u << lane, load, dst, dst_offset, barrier, barrier_offset, multicast, 16);
  }
}

extern "C" void pe_tma_load(Warp *warp, P mask, int rank, int im2col, const V32 *dst, int64_t dst_offset,
                            const V64 *map, int64_t map_offset, const V32 *coordinates,
                            const V16 *im2col_offsets, const V32 *barrier, int64_t barrier_offset,
                            const V32 *multicast, uint32_t line) {
  if (!one_lane(warp, mask, line, "tensor copy")) return;
  mask &= 0u - mask;
  int lane = first(mask);
  BulkLoad load;
  load.kind = 1;
  load.line = line;
  if (!load_map(warp, mask, map, map_offset, load.map, line)) return;
  if (load.map.rank != rank || load.map.im2col != im2col) {
    pe_error(warp, lane, line, "tensor copy of %dd%s uses a %dd%s map", rank, im2col ? " im2col" : "",
             load.map.rank, load.map.im2col ? " im2col" : "");
    return;
  }
  load.bytes = box_bytes(load.map);
  for (int i = 0; i < 5; i++) load.coordinates[i] = i < rank ? (int32_t)lane32(coordinates[i], lane) : 0;
  for (int i = 0; i < 3; i++)
    load.im2col_offsets[i] =
        im2col_offsets && i < rank - 2 ? ((const uint16_t *)&im2col_offsets[i])[lane] : 0;
  enqueue(warp, mask, load, dst, dst_offset, barrier, barrier_offset, multicast, 128);
}

static void run_store(Warp *warp, BulkStore &store) {
  Cta *cta = warp->cta;
  if (store.kind == 0) {
    memcpy((void *)store.address, cta->smem + store.shared_offset, store.bytes);
    mark(cta, store.address, store.bytes, true);
  } else {
    const TensorMap &map = store.map;
    bool ok = true;
    uint16_t no_offsets[3] = {0, 0, 0};
    visit(map, store.coordinates, no_offsets, [&](uint32_t off, const int32_t *element, int n) {
      if (!inside(map, element)) return;
      uint64_t row = row_addr(map, element);
      for (int i = 0; i < n; i++) {
        int64_t x = (int64_t)element[0] + (int64_t)i * map.element_stride[0];
        if (x < 0 || (uint64_t)x >= map.dim[0]) continue;
        uint64_t address = row + x * map.element_bytes;
        if (!find_region(cta->launch, address, map.element_bytes)) {
          if (ok)
            pe_error(warp, -1, store.line, "tensor store writes 0x%llx outside any allocation",
                     (unsigned long long)address);
          ok = false;
          continue;
        }
        const char *source =
            cta->smem + swizzle_address(store.shared_offset + off + i * map.element_bytes, map.swizzle);
        if (store.reduces && map.element_bytes == 4) {
          uint32_t term, old = __atomic_load_n((uint32_t *)address, __ATOMIC_RELAXED), sum;
          memcpy(&term, source, 4);
          do sum = f32_bits(bits_f32(old) + bits_f32(term));
          while (!__atomic_compare_exchange_n((uint32_t *)address, &old, sum, false, __ATOMIC_ACQ_REL,
                                              __ATOMIC_RELAXED));
        } else memcpy((void *)address, source, map.element_bytes);
      }
      mark(cta, row + std::max(0, element[0]) * map.element_bytes,
           std::min<int64_t>(n, (int64_t)map.dim[0] - element[0]) * map.element_bytes, true);
    });
  }
  warp->cta->worker->counters[COUNT_TMA_BYTES] += store.bytes;
}

extern "C" void pe_bulk_s2g(Warp *warp, P mask, const V64 *dst, int64_t dst_offset, const V32 *src,
                            int64_t src_offset, const V32 *size, uint32_t line) {
  WarpAsyncState *async_state = (WarpAsyncState *)warp->wg;
  for (int lane : lanes(mask)) {
    BulkStore store;
    store.kind = 0;
    store.line = line;
    store.bytes = lane32(*size, lane);
    store.address = lane64(*dst, lane) + dst_offset;
    store.group = async_state->committed;
    if (store.bytes & 15) {
      pe_error(warp, lane, line, "cp.async.bulk size %u is not a multiple of 16", store.bytes);
      continue;
    }
    uint32_t shared_offset;
    if (!resolve_shared(warp, lane, lane32(*src, lane) + (uint32_t)src_offset, store.bytes, 16, line,
                        "cp.async.bulk source", nullptr, &shared_offset) ||
        !resolve_generic(warp, lane, store.address, store.bytes, 16, true, line, "cp.async.bulk destination"))
      continue;
    store.shared_offset = shared_offset;
    async_state->stores.push_back(store);
  }
}

extern "C" void pe_tma_store(Warp *warp, P mask, int rank, int reduces, const V64 *map, int64_t map_offset,
                             const V32 *coordinates, const V32 *src, int64_t src_offset, uint32_t line) {
  if (!one_lane(warp, mask, line, "tensor store")) return;
  WarpAsyncState *async_state = (WarpAsyncState *)warp->wg;
  mask &= 0u - mask;
  int lane = first(mask);
  BulkStore store;
  store.kind = 1;
  store.line = line;
  store.reduces = reduces;
  store.group = async_state->committed;
  if (!load_map(warp, mask, map, map_offset, store.map, line)) return;
  if (store.map.rank != rank) {
    pe_error(warp, lane, line, "tensor store of %dd uses a %dd map", rank, store.map.rank);
    return;
  }
  store.bytes = box_bytes(store.map);
  for (int i = 0; i < 5; i++) store.coordinates[i] = i < rank ? (int32_t)lane32(coordinates[i], lane) : 0;
  uint32_t shared_offset;
  if (!resolve_shared(warp, lane, lane32(*src, lane) + (uint32_t)src_offset, store.bytes, 128, line,
                      "tensor store source", nullptr, &shared_offset))
    return;
  store.shared_offset = shared_offset;
  async_state->stores.push_back(store);
}

extern "C" void pe_bulk_commit(Warp *warp, P mask) {
  if (mask) ((WarpAsyncState *)warp->wg)->committed++;
}

extern "C" void pe_bulk_wait(Warp *warp, P mask, int n, int read, uint32_t line) {
  if (!mask) return;
  WarpAsyncState *async_state = (WarpAsyncState *)warp->wg;
  size_t i = 0;
  for (; i < async_state->stores.size() && async_state->stores[i].group + n < async_state->committed; i++)
    run_store(warp, async_state->stores[i]);
  async_state->stores.erase(async_state->stores.begin(), async_state->stores.begin() + i);
}

void bulk_finish(Warp *warp) {
  WarpAsyncState *async_state = (WarpAsyncState *)warp->wg;
  if (!async_state) return;
  for (auto &store : async_state->stores) run_store(warp, store);
  async_state->stores.clear();
}
