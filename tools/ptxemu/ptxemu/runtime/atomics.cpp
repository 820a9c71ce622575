// Atomics on global and shared memory.
#include "internal.hpp"

#include <math.h>

template <class T> static T integer_op(int op, T old, T value, T swapped) {
  switch (op) {
  case AO_ADD: return old + value;
  case AO_MIN: return old < value ? old : value;
  case AO_MAX: return old > value ? old : value;
  case AO_AND: return old & value;
  case AO_OR: return old | value;
  case AO_XOR: return old ^ value;
  case AO_INC: return old >= value ? 0 : old + 1;
  case AO_DEC: return old == 0 || old > value ? value : old - 1;
  case AO_EXCH: return value;
  case AO_CAS: return old == value ? swapped : old;
  }
  return old;
}

static float float_op(int op, float old, float value) {
  return op == AO_ADD ? old + value : op == AO_MIN ? fminf(old, value) : fmaxf(old, value);
}

static uint16_t half_op(int op, uint16_t old, uint16_t value) {
  return f2h(float_op(op, h2f(old), h2f(value)));
}

static uint16_t bfloat_op(int op, uint16_t old, uint16_t value) {
  return f2bf(float_op(op, bf2f(old), bf2f(value)));
}

template <class F> static uint32_t both_halves(uint32_t old, uint32_t value, F operation) {
  return operation((uint16_t)old, (uint16_t)value) |
         (uint32_t)operation((uint16_t)(old >> 16), (uint16_t)(value >> 16)) << 16;
}

// replace the T at `memory` by operation(old, values[index], swapped[index]); the old one goes to
// old_values[index]
template <class T, class F>
static void update(void *memory, int index, const void *values, const void *swapped, void *old_values,
                   F operation) {
  T value = ((const T *)values)[index], swap = swapped ? ((const T *)swapped)[index] : 0;
  T old = __atomic_load_n((T *)memory, __ATOMIC_RELAXED), changed;
  do changed = operation(old, value, swap);
  while (!__atomic_compare_exchange_n((T *)memory, &old, changed, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED));
  if (old_values) ((T *)old_values)[index] = old;
}

static void update_element(int type, int op, void *memory, int index, const void *values, const void *swapped,
                           void *old_values) {
  auto run = [&](auto zero, auto operation) {
    update<decltype(zero)>(memory, index, values, swapped, old_values, operation);
  };
  switch (type) {
  case AD_U32:
    return run(uint32_t(), [=](uint32_t o, uint32_t v, uint32_t s) { return integer_op(op, o, v, s); });
  case AD_S32:
    return run(uint32_t(), [=](int32_t o, int32_t v, int32_t s) { return integer_op(op, o, v, s); });
  case AD_U64:
    return run(uint64_t(), [=](uint64_t o, uint64_t v, uint64_t s) { return integer_op(op, o, v, s); });
  case AD_S64:
    return run(uint64_t(), [=](int64_t o, int64_t v, int64_t s) { return integer_op(op, o, v, s); });
  case AD_B16:
    return run(uint16_t(), [=](uint16_t o, uint16_t v, uint16_t s) { return integer_op(op, o, v, s); });
  case AD_F16: return run(uint16_t(), [=](uint16_t o, uint16_t v, uint16_t) { return half_op(op, o, v); });
  case AD_BF16: return run(uint16_t(), [=](uint16_t o, uint16_t v, uint16_t) { return bfloat_op(op, o, v); });
  case AD_F32:
    return run(uint32_t(), [=](uint32_t o, uint32_t v, uint32_t) {
      return f32_bits(float_op(op, bits_f32(o), bits_f32(v)));
    });
  case AD_F64:
    return run(uint64_t(), [](uint64_t o, uint64_t v, uint64_t) { // .add is the only one
      double sum, term;
      memcpy(&sum, &o, 8);
      memcpy(&term, &v, 8);
      sum += term;
      memcpy(&o, &sum, 8);
      return o;
    });
  case AD_F16X2:
    return run(uint32_t(), [=](uint32_t o, uint32_t v, uint32_t) {
      return both_halves(o, v, [=](uint16_t x, uint16_t y) { return half_op(op, x, y); });
    });
  case AD_BF16X2:
    return run(uint32_t(), [=](uint32_t o, uint32_t v, uint32_t) {
      return both_halves(o, v, [=](uint16_t x, uint16_t y) { return bfloat_op(op, x, y); });
    });
  }
}

// DRAM traffic of one lane's atomic: it reads and writes the sectors it touches
static void mark_sectors(Region *region, uint64_t address, uint32_t bytes) {
  if (!region->read_sectors) return;
  for (uint64_t sector = address >> 5; sector <= (address + bytes - 1) >> 5; sector++) {
    region->read_sectors[sector - (region->lo >> 5)] = 1;
    region->written_sectors[sector - (region->lo >> 5)] = 1;
  }
}

// element v of lane l is at index v * 32 + l of values, swapped and old_values
extern "C" void pe_atom(Warp *warp, P mask, int is_shared, const void *base, int64_t offset, int type, int op,
                        int vector_length, const void *values, const void *swapped, void *old_values,
                        uint32_t line) {
  static const uint32_t type_bytes[] = {4, 4, 8, 8, 4, 8, 2, 2, 4, 4, 2}; // enum AtomicType
  const uint32_t element_bytes = type_bytes[type], bytes = element_bytes * vector_length;
  if (!mask) return;
  bool any_global = false;
  for (int lane : lanes(mask)) {
    Region *region = nullptr;
    char *memory;
    if (is_shared) {
      uint32_t address = lane32(*(const V32 *)base, lane) + (uint32_t)offset;
      memory = resolve_shared(warp, lane, address, bytes, bytes, line, "shared atomic");
    } else {
      uint64_t address = lane64(*(const V64 *)base, lane) + offset;
      memory = resolve_generic(warp, lane, address, bytes, bytes, true, line, "atomic", &region);
    }
    if (!memory) continue;
    if (region) {
      any_global = true;
      mark_sectors(region, (uint64_t)memory, bytes);
    }
    for (int v = 0; v < vector_length; v++)
      update_element(type, op, memory + v * element_bytes, v * 32 + lane, values, swapped, old_values);
  }
  if (launch_of(warp)->options.count && any_global) worker_of(warp)->counters[COUNT_ATOMIC_REQUESTS]++;
  warp->cta->progress++;
}
