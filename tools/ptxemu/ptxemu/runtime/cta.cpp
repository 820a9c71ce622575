// The state of a CTA at its start.
#include "internal.hpp"

#include <algorithm>
#include <stdlib.h>

void start_cta(Cta *cta, uint64_t index, uint32_t rank) {
  Launch *launch = cta->launch;
  const KernelDesc *kernel = launch->kernel;
  cta->ctaid[0] = index % launch->grid[0];
  cta->ctaid[1] = index / launch->grid[0] % launch->grid[1];
  cta->ctaid[2] = index / launch->grid[0] / launch->grid[1];
  cta->nthreads = launch->block[0] * launch->block[1] * launch->block[2];
  cta->warp_count = (cta->nthreads + 31) / 32;
  cta->live_threads = cta->nthreads;
  cta->done = false;
  cta->rank = rank;
  cta->smem_size = launch->smem_size;
  memset(cta->smem, 0xff, cta->smem_size);
  if (cta->warps.size() != cta->warp_count) {
    cta->warps.resize(cta->warp_count);
    cta->copy_states.resize(cta->warp_count);
  }
  cta->async_states.assign(cta->warp_count, WarpAsyncState());
  if (cta->rf_size < (size_t)cta->warp_count * kernel->register_file_bytes) {
    free(cta->rf_mem);
    cta->rf_size = (size_t)cta->warp_count * kernel->register_file_bytes;
    cta->rf_mem = (char *)aligned_alloc(64, cta->rf_size + 64);
    memset(cta->rf_mem, 0, cta->rf_size);
  }
  uint32_t local_stride = (kernel->local_bytes + 15) & ~15u;
  size_t local_bytes = (size_t)local_stride * cta->warp_count * 32 + 64;
  if (cta->local_size < local_bytes) {
    free(cta->local);
    cta->local = (char *)aligned_alloc(64, (local_bytes + 63) & ~63ull);
    cta->local_size = local_bytes;
  }
  memset(cta->local, 0xff, std::min(cta->local_size, local_bytes));
  for (auto &b : cta->bars) b = Barrier();
  cta->mbarriers.clear();
  cta->async.clear();
  cta->progress = 0;
  cta->cluster_arrived = 0;
  if (launch->options.race) {
    cta->clocks.assign(cta->warp_count * cta->warp_count, 0);
    for (uint32_t i = 0; i < cta->warp_count; i++) cta->clocks[i * cta->warp_count + i] = 1;
    cta->granule_count = (cta->smem_size + kernel->race_granularity - 1) / kernel->race_granularity;
    cta->shadow.write_clock.assign(cta->granule_count, 0);
    cta->shadow.writer.assign(cta->granule_count, 255);
    cta->shadow.read_clock.assign((size_t)cta->granule_count * cta->warp_count, 0);
  }
  uint32_t cluster[3] = {launch->cluster[0], launch->cluster[1], launch->cluster[2]};
  for (uint32_t i = 0; i < cta->warp_count; i++) {
    Warp &warp = cta->warps[i];
    warp.rf = cta->rf_mem + (size_t)i * kernel->register_file_bytes;
    warp.cta = cta;
    warp.wid = i;
    warp.nlanes = std::min(32u, cta->nthreads - i * 32);
    alignas(64) uint32_t tid[3][32];
    for (uint32_t lane = 0; lane < 32; lane++) {
      uint32_t thread = i * 32 + lane;
      tid[0][lane] = thread % launch->block[0];
      tid[1][lane] = thread / launch->block[0] % launch->block[1];
      tid[2][lane] = thread / launch->block[0] / launch->block[1];
    }
    for (int d = 0; d < 3; d++) {
      warp.tid[d] = ldv32(tid[d]);
      warp.ntid[d] = launch->block[d];
      warp.ctaid[d] = cta->ctaid[d];
      warp.nctaid[d] = launch->grid[d];
      warp.cluster_nctaid[d] = cluster[d];
      warp.cluster_ctaid[d] = cta->ctaid[d] % cluster[d];
    }
    warp.cluster_size = cluster[0] * cluster[1] * cluster[2];
    warp.cluster_rank =
        warp.cluster_ctaid[0] + cluster[0] * (warp.cluster_ctaid[1] + cluster[1] * warp.cluster_ctaid[2]);
    warp.live = warp.nlanes == 32 ? ~0u : (1u << warp.nlanes) - 1;
    warp.group_count = 1;
    warp.groups[0] = Group{0, warp.live, 0};
    warp.yield = 0;
    warp.bypass = 0;
    warp.local_stride = local_stride;
    warp.local_base = cta->local + (size_t)i * 32 * local_stride;
    warp.params = launch->params;
    warp.dyn_smem = launch->dynamic_smem;
    warp.tot_smem = launch->smem_size;
    warp.bar_cnt = 0;
    warp.gridid = 0;
    warp.gridws = (uint64_t)launch->gridws;
    warp.wg = &cta->async_states[i];
    warp.cluster_token = 0;
    warp.wg_pend = 0;
    cta->copy_states[i].queue.clear();
    memset(cta->copy_states[i].committed, 0, sizeof cta->copy_states[i].committed);
    warp.cp = &cta->copy_states[i];
  }
}
