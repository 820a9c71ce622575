// Packed weights: one flat buffer, a header and then the filters in the order in which the kernels read them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/conv/shape.h"

namespace fusedres::conv {

struct PackedHeader {
  static constexpr uint64_t kMagic = 0x33306e6f63736266;  // "fbscon03"
  uint64_t magic;
  int64_t algorithm;
  int64_t bytes;  // of the whole buffer: what a kernel may read
  int64_t group;  // channels are stored, and read, in multiples of this (AMX: 32, or a stem's 4)
  int64_t run;    // channels that a panel's filters read: all, or those of the groups they lie in
  int64_t pass;   // filters whose weights lie side by side: a panel's, or those of a pass of its tile
                  // (vector_tile.h)
  Filter filter;
};

// A filter's taps (R * S) are listed on the stack.
constexpr int64_t kMostTaps = 128;

// A multiple of 64: in a buffer that is aligned to 64 bytes no vector of the weights crosses a cache line,
// and AMX's parts are stored aligned where they are packed. Loads need no alignment.
constexpr int64_t kPackedDataOffset = 192;
static_assert(sizeof(PackedHeader) <= kPackedDataOffset);

inline const PackedHeader& packed_header(const void* packed) {
  return *static_cast<const PackedHeader*>(packed);
}
inline const char* packed_data(const void* packed) {
  return static_cast<const char*>(packed) + kPackedDataOffset;
}

// Input channels as the kernels of `header` see them: rounded up to the group, the rest being zeros.
inline int64_t packed_channels(const PackedHeader& header) {
  return round_up(header.filter.in_channels, header.group);
}

// The first of the `run` channels that panel `panel` reads.
int64_t first_channel(const PackedHeader& header, int64_t panel);

// Groups of 4, 8 or 16 channels and as many filters: a quad of filters reads 1, 2 or 4 blocks of 4 channels,
// by the tiles of group_tile.h; 0 where plain tiles read a panel's groups as one block-diagonal filter.
int64_t quad_blocks(const PackedHeader& header);

// The filter's columns and channels lie in one run (a stem: 7 x 4 values), read as if they were channels.
bool merges_columns(const PackedHeader& header);

// Bytes of the weights of one panel of 32 filters.
int64_t panel_bytes(const PackedHeader& header);

PackedHeader make_header(Algorithm algorithm, const Filter& filter);

// Write `header` at the start of `out`, which has header.bytes bytes, aligned to 64.
void write_header(const PackedHeader& header, void* out);

// Write the packed form of one panel of `weights`, (K, C, R, S) with the given strides in elements, fp32 or
// bf16 by the algorithm's type. Panels are independent: each may be packed by another thread.
void pack_panel(
    const PackedHeader& header, const void* weights, const int64_t strides[4], int64_t panel, void* out);

}  // namespace fusedres::conv
