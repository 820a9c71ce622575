// Race detector: a vector clock per warp, and the last writer and readers of each piece of shared memory.
#include "internal.hpp"

void join_clocks(std::vector<uint32_t> &into, const uint32_t *other, uint32_t count) {
  if (into.size() < count) into.resize(count, 0);
  for (uint32_t i = 0; i < count; i++)
    if (other[i] > into[i]) into[i] = other[i];
}

void race_access(Warp *warp, int lane, uint32_t offset, uint32_t bytes, bool write, uint32_t line) {
  Cta *cta = warp->cta;
  uint32_t warp_count = cta->warp_count, me = warp->wid, *known = &cta->clocks[me * warp_count];
  uint32_t granule = cta->launch->kernel->race_granularity;
  RaceShadow &shadow = cta->shadow;
  for (uint32_t i = offset / granule; i <= (offset + bytes - 1) / granule; i++) {
    uint32_t writer = shadow.writer[i];
    if (writer != NO_WRITER && writer != me && shadow.write_clock[i] > known[writer]) {
      pe_error(
          warp, lane, line,
          "shared memory race: %s of offset %u by warp %u conflicts with an unsynchronised write by warp %u",
          write ? "write" : "read", i * granule, me, writer);
      return;
    }
    if (!write && writer == NO_WRITER && cta->launch->options.check_init) {
      pe_error(warp, lane, line, "read of uninitialised shared memory at offset %u", i * granule);
      return;
    }
    if (write) {
      uint32_t *reads = &shadow.read_clock[i * warp_count];
      for (uint32_t reader = 0; reader < warp_count; reader++)
        if (reader != me && reads[reader] > known[reader]) {
          pe_error(warp, lane, line,
                   "shared memory race: write of offset %u by warp %u conflicts with an unsynchronised read "
                   "by warp %u",
                   i * granule, me, reader);
          return;
        }
      shadow.writer[i] = me;
      shadow.write_clock[i] = known[me];
    } else shadow.read_clock[i * warp_count + me] = known[me];
  }
}
