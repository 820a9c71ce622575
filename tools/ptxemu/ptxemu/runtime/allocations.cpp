// Device allocations: which host memory a kernel may touch.
#include "internal.hpp"

#include <algorithm>

struct Alloc {
  uint64_t lo, size;
  uint32_t id, kind;
};

// the table of allocations, and the last ones that were freed
static std::mutex g_allocations_mutex;
static std::map<uint64_t, Alloc> g_allocs;
static std::vector<Alloc> g_freed;
static uint32_t g_next_id = 1;

extern "C" uint32_t pe_register(uint64_t p, uint64_t n, uint32_t kind) {
  std::lock_guard<std::mutex> g(g_allocations_mutex);
  uint32_t id = g_next_id++;
  g_allocs[p] = Alloc{p, n, id, kind};
  for (size_t i = 0; i < g_freed.size();) {
    if (g_freed[i].lo < p + n && p < g_freed[i].lo + g_freed[i].size) {
      g_freed[i] = g_freed.back();
      g_freed.pop_back();
    } else i++;
  }
  return id;
}

extern "C" int pe_unregister(uint64_t p) {
  std::lock_guard<std::mutex> g(g_allocations_mutex);
  auto it = g_allocs.find(p);
  if (it == g_allocs.end()) return 0;
  g_freed.push_back(it->second);
  if (g_freed.size() > 256) g_freed.erase(g_freed.begin());
  g_allocs.erase(it);
  return 1;
}

extern "C" uint64_t pe_alloc_size(uint64_t p) {
  std::lock_guard<std::mutex> g(g_allocations_mutex);
  auto it = g_allocs.find(p);
  return it == g_allocs.end() ? 0 : it->second.size;
}

extern "C" int pe_find_alloc(uint64_t p, uint64_t *lo, uint64_t *size) {
  std::lock_guard<std::mutex> g(g_allocations_mutex);
  auto it = g_allocs.upper_bound(p);
  if (it == g_allocs.begin()) return 0;
  --it;
  if (p >= it->second.lo + it->second.size) return 0;
  if (lo) *lo = it->second.lo;
  if (size) *size = it->second.size;
  return 1;
}

std::vector<Region> registered_regions() {
  std::lock_guard<std::mutex> guard(g_allocations_mutex);
  std::vector<Region> regions;
  for (auto &entry : g_allocs) {
    const Alloc &alloc = entry.second;
    regions.push_back(Region{alloc.lo, alloc.lo + alloc.size, nullptr, nullptr, alloc.kind, alloc.id});
  }
  return regions;
}

Region *find_region(Launch *launch, uint64_t a, uint64_t n) {
  auto &v = launch->regions;
  size_t lo = 0, hi = v.size();
  while (lo < hi) {
    size_t mid = (lo + hi) / 2;
    if (v[mid].lo <= a) lo = mid + 1;
    else hi = mid;
  }
  if (!lo) return nullptr;
  Region *r = &v[lo - 1];
  return a + n <= r->hi ? r : nullptr;
}

std::string describe_address(Launch *launch, uint64_t a, uint64_t n) {
  char b[300];
  Region *best = nullptr;
  uint64_t bd = ~0ull;
  for (auto &r : launch->regions) {
    uint64_t d = a < r.lo ? r.lo - a : a + n > r.hi ? a + n - r.hi : 0;
    if (d < bd) bd = d, best = &r;
  }
  {
    std::lock_guard<std::mutex> g(g_allocations_mutex);
    for (auto &f : g_freed)
      if (a >= f.lo && a < f.lo + f.size) {
        snprintf(b, sizeof b, "inside freed allocation #%u (use after free)", f.id);
        return b;
      }
  }
  if (!best || bd > (1ull << 32)) return "not near any registered allocation";
  if (a < best->lo)
    snprintf(b, sizeof b, "%llu bytes before allocation #%u (%llu bytes at 0x%llx)",
             (unsigned long long)(best->lo - a), best->id, (unsigned long long)(best->hi - best->lo),
             (unsigned long long)best->lo);
  else
    snprintf(b, sizeof b, "offset %llu of allocation #%u (%llu bytes at 0x%llx)",
             (unsigned long long)(a - best->lo), best->id, (unsigned long long)(best->hi - best->lo),
             (unsigned long long)best->lo);
  return b;
}
