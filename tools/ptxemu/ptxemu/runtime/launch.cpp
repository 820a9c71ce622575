// A launch: checks, worker threads, counters.
#include "internal.hpp"

#include <algorithm>
#include <stdlib.h>

static std::string g_errors;
static uint64_t g_counters[COUNTER_COUNT];

extern "C" int pe_launch(const KernelDesc *kernel, const uint32_t *grid, const uint32_t *block,
                         const uint32_t *cluster, const void *params, uint32_t dynamic_smem,
                         const LaunchOptions *options) {
  Launch launch;
  launch.kernel = kernel;
  launch.options = *options;
  launch.params = (const char *)params;
  launch.dynamic_smem = dynamic_smem;
  memset(launch.counters, 0, sizeof launch.counters);
  for (int i = 0; i < 3; i++) {
    launch.grid[i] = grid[i];
    launch.block[i] = block[i];
    launch.cluster[i] = cluster && cluster[i] ? cluster[i] : kernel->cluster[i] ? kernel->cluster[i] : 1;
  }
  launch.smem_size = kernel->has_dynamic_shared ? ((kernel->shared_static + 15) & ~15u) + dynamic_smem
                                                : kernel->shared_static + dynamic_smem;
  g_errors.clear();
  memset(g_counters, 0, sizeof g_counters);
  auto fail = [&](const std::string &s) {
    g_errors = "kernel " + std::string(kernel->name) + ": launch error: " + s;
    return 1;
  };
  uint64_t thread_count = (uint64_t)block[0] * block[1] * block[2];
  if (!thread_count || thread_count > 1024) return fail("invalid block size");
  if (kernel->max_threads && thread_count > kernel->max_threads)
    return fail("block size " + std::to_string(thread_count) + " exceeds .maxntid " +
                std::to_string(kernel->max_threads));
  for (int i = 0; i < 3; i++)
    if (!grid[i] || grid[i] % launch.cluster[i]) return fail("invalid grid size");
  if (grid[1] > 65535 || grid[2] > 65535) return fail("grid y/z exceeds 65535");
  if (launch.smem_size > 227 * 1024)
    return fail("shared memory " + std::to_string(launch.smem_size) + " exceeds 232448 bytes");
  launch.regions = registered_regions();
  launch.regions.push_back(
      Region{(uint64_t)params, (uint64_t)params + kernel->param_bytes, nullptr, nullptr, 1, 0});
  alignas(64) uint32_t gridws[16] = {};
  launch.gridws = options->cooperative ? gridws : nullptr;
  if (options->cooperative)
    launch.regions.push_back(Region{(uint64_t)gridws, (uint64_t)(gridws + 16), nullptr, nullptr, 0, 0});
  std::sort(launch.regions.begin(), launch.regions.end(),
            [](const Region &a, const Region &b) { return a.lo < b.lo; });
  if (options->count >= 2)
    for (auto &r : launch.regions)
      if (r.kind == 0) {
        size_t n = ((r.hi - r.lo) >> 5) + 2;
        r.read_sectors = (uint8_t *)calloc(n, 1);
        r.written_sectors = (uint8_t *)calloc(n, 1);
      }
  uint32_t cluster_size = launch.cluster[0] * launch.cluster[1] * launch.cluster[2];
  uint64_t units = (uint64_t)grid[0] * grid[1] * grid[2] / cluster_size;
  uint32_t worker_count = std::max(1u, std::min<uint32_t>(options->threads, units));
  if (options->seed || options->cooperative) worker_count = 1;
  std::vector<Worker *> workers;
  for (uint32_t i = 0; i < worker_count; i++) {
    Worker *worker = new Worker();
    worker->launch = &launch;
    memset(worker->counters, 0, sizeof worker->counters);
    memset(worker->site_cache, 0, sizeof worker->site_cache);
    worker->block_runs.assign(kernel->block_count, 0);
    worker->block_lanes.assign(kernel->block_count, 0);
    workers.push_back(worker);
  }
  std::vector<std::thread> threads;
  for (uint32_t i = 1; i < worker_count; i++) threads.emplace_back(run_worker, workers[i]);
  run_worker(workers[0]);
  for (auto &thread : threads) thread.join();
  for (Worker *worker : workers) {
    for (int i = 0; i < COUNTER_COUNT; i++) launch.counters[i] += worker->counters[i];
    for (uint32_t b = 0; b < kernel->block_count; b++) {
      launch.counters[COUNT_BLOCKS] += worker->block_runs[b];
      if (worker->block_runs[b])
        for (int c = 0; c < CLASS_COUNT; c++) {
          launch.counters[COUNT_WARP_INST + c] += worker->block_runs[b] * kernel->blocks[b].cls[c];
          launch.counters[COUNT_LANE_INST + c] += worker->block_lanes[b] * kernel->blocks[b].cls[c];
        }
    }
    delete worker;
  }
  for (auto &r : launch.regions)
    if (r.read_sectors) {
      size_t n = ((r.hi - r.lo) >> 5) + 2;
      for (size_t i = 0; i < n; i++) {
        launch.counters[COUNT_DRAM_READ_BYTES] += 32 * r.read_sectors[i];
        launch.counters[COUNT_DRAM_WRITE_BYTES] += 32 * r.written_sectors[i];
      }
      free(r.read_sectors);
      free(r.written_sectors);
    }
  memcpy(g_counters, launch.counters, sizeof g_counters);
  for (auto &s : launch.errors) g_errors += s + "\n";
  if (launch.error_count > launch.errors.size())
    g_errors += "(" + std::to_string((unsigned)launch.error_count) + " errors in all)\n";
  return launch.error_count != 0;
}

extern "C" const char *pe_last_errors() { return g_errors.c_str(); }

extern "C" const uint64_t *pe_last_counters() { return g_counters; }
