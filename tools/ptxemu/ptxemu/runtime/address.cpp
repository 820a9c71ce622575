// Addresses: checks of every access, and conversion between state spaces.
#include "internal.hpp"

// the CTA of the cluster whose shared memory holds a generic address: our own is the likely one
static Cta *smem_owner(Warp *warp, uint64_t address) {
  Cta *own = warp->cta;
  if (address - (uint64_t)own->smem < (1 << 20)) return own;
  for (Cta *other : *own->gang)
    if (address - (uint64_t)other->smem < (1 << 20)) return other;
  return nullptr;
}

char *resolve_shared(Warp *warp, int lane, uint32_t address, uint32_t bytes, uint32_t align, uint32_t line,
                     const char *what, Cta **owner, uint32_t *shared_offset) {
  Cta *owning = warp->cta;
  uint32_t rank = address >> 24, offset = address & 0xffffff;
  if (rank) {
    if (rank > owning->gang->size()) {
      pe_error(warp, lane, line, "%s of %u bytes at shared address 0x%x outside the CTA's window (%u bytes)",
               what, bytes, address, owning->smem_size);
      return nullptr;
    }
    owning = (*owning->gang)[rank - 1];
  }
  if (offset + bytes > owning->smem_size) {
    pe_error(warp, lane, line, "%s of %u bytes at shared offset %u out of bounds (CTA has %u bytes)", what,
             bytes, offset, owning->smem_size);
    return nullptr;
  }
  if (offset & (align - 1)) {
    pe_error(warp, lane, line, "misaligned %s of %u bytes at shared offset %u", what, bytes, offset);
    return nullptr;
  }
  if (owner) *owner = owning;
  if (shared_offset) *shared_offset = offset;
  return owning->smem + offset;
}

char *resolve_generic(Warp *warp, int lane, uint64_t address, uint32_t bytes, uint32_t align, bool write,
                      uint32_t line, const char *what, Region **region, uint32_t *shared_offset) {
  Launch *launch = launch_of(warp);
  if (region) *region = nullptr;
  if (shared_offset) *shared_offset = ~0u;
  if (address & (align - 1)) {
    pe_error(warp, lane, line, "misaligned %s of %u bytes at 0x%llx", what, bytes,
             (unsigned long long)address);
    return nullptr;
  }
  if (Region *r = find_region(launch, address, bytes)) {
    if (write && r->kind == 1) {
      pe_error(warp, lane, line, "%s to read-only memory at 0x%llx", what, (unsigned long long)address);
      return nullptr;
    }
    if (region) *region = r;
    return (char *)address;
  }
  if (Cta *owning = smem_owner(warp, address)) {
    uint32_t offset = address - (uint64_t)owning->smem;
    if (offset + bytes <= owning->smem_size) {
      if (shared_offset && owning == warp->cta) *shared_offset = offset;
      return (char *)address;
    }
    pe_error(warp, lane, line,
             "%s of %u bytes at shared offset %u (generic) out of bounds (CTA has %u bytes)", what, bytes,
             offset, owning->smem_size);
    return nullptr;
  }
  if (address >= (uint64_t)warp->cta->local &&
      address + bytes <= (uint64_t)warp->cta->local + warp->cta->local_size)
    return (char *)address;
  pe_error(warp, lane, line, "%s of %u bytes at 0x%llx out of bounds: %s", what, bytes,
           (unsigned long long)address, describe_address(launch, address, bytes).c_str());
  return nullptr;
}

extern "C" V64 pe_shared_to_generic(Warp *warp, const V64 *a) {
  V64 r;
  const uint64_t *A = (const uint64_t *)a;
  uint64_t *R = (uint64_t *)&r;
  for (int lane = 0; lane < 32; lane++) {
    uint32_t o = (uint32_t)A[lane], rk = o >> 24;
    Cta *c = rk && rk <= warp->cta->gang->size() ? (*warp->cta->gang)[rk - 1] : warp->cta;
    R[lane] = (uint64_t)c->smem + (o & 0xffffff);
  }
  return r;
}

extern "C" V64 pe_generic_to_shared(Warp *warp, P mask, const V64 *a, uint32_t line) {
  V64 r = bc64(0);
  const uint64_t *A = (const uint64_t *)a;
  uint64_t *R = (uint64_t *)&r;
  for (int lane = 0; lane < 32; lane++) {
    uint64_t d = A[lane] - (uint64_t)warp->cta->smem;
    if (d < (1 << 20)) {
      R[lane] = d;
      continue;
    }
    R[lane] = 0xfffff0;
    for (size_t i = 0; i < warp->cta->gang->size(); i++) {
      d = A[lane] - (uint64_t)(*warp->cta->gang)[i]->smem;
      if (d < (1 << 20)) R[lane] = (i + 1) << 24 | d;
    }
  }
  return r;
}

extern "C" V64 pe_local_to_generic(Warp *warp, const V64 *a) {
  V64 r;
  const uint64_t *A = (const uint64_t *)a;
  uint64_t *R = (uint64_t *)&r;
  for (int lane = 0; lane < 32; lane++)
    R[lane] = (uint64_t)warp->local_base + (uint64_t)lane * warp->local_stride + A[lane];
  return r;
}

extern "C" V64 pe_generic_to_local(Warp *warp, const V64 *a) {
  V64 r;
  const uint64_t *A = (const uint64_t *)a;
  uint64_t *R = (uint64_t *)&r;
  for (int lane = 0; lane < 32; lane++)
    R[lane] = A[lane] - ((uint64_t)warp->local_base + (uint64_t)lane * warp->local_stride);
  return r;
}

extern "C" P pe_isspace(Warp *warp, P mask, const V64 *a, int space) {
  P r = 0;
  const uint64_t *A = (const uint64_t *)a;
  for (int lane : lanes(mask)) {
    bool s = A[lane] - (uint64_t)warp->cta->smem < (1 << 20);
    bool lo = A[lane] - (uint64_t)warp->cta->local < warp->cta->local_size;
    bool v = space == 1 ? s : space == 2 ? lo : space == 0 ? !s && !lo : false;
    if (v) r |= 1u << lane;
  }
  return r;
}

extern "C" V32 pe_mapa32(Warp *warp, P mask, const V32 *a, const V32 *rank) {
  V32 r;
  for (int lane = 0; lane < 32; lane++)
    ((uint32_t *)&r)[lane] = (lane32(*a, lane) & 0xffffff) | (lane32(*rank, lane) + 1) << 24;
  return r;
}

extern "C" V64 pe_mapa64(Warp *warp, P mask, const V64 *a, const V32 *rank, uint32_t line) {
  V64 r = bc64(0);
  for (int lane : lanes(mask)) {
    uint32_t rk = lane32(*rank, lane);
    if (rk >= warp->cta->gang->size()) {
      pe_error(warp, lane, line, "mapa: rank %u outside the cluster", rk);
      continue;
    }
    ((uint64_t *)&r)[lane] =
        lane64(*a, lane) - (uint64_t)warp->cta->smem + (uint64_t)(*warp->cta->gang)[rk]->smem;
  }
  return r;
}
