// AMX's tile configuration. Include only from *_amx.cpp.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace fusedres::conv {

// What ldtilecfg reads (Intel's Software Developer's Manual, volume 1, 18.3).
struct TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfig) == 64);

inline void load_config(const TileConfig& config) {
  // GCC's intrinsic declares only 8 of the 64 bytes as read; without this the other stores are dropped.
  asm volatile("" : : "r"(&config) : "memory");
  _tile_loadconfig(&config);
}

}  // namespace fusedres::conv
