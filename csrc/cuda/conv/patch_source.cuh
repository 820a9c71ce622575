// The left operand read from a patch: the source pixels that a tile needs, once in shared memory for all
// taps.
//
// A tile is consecutive pixels of the result, so its patch is some whole rows of one or more images, with
// their halo. A pixel's channels of one reduction chunk are a slot of 64 bytes. For ldmatrix, eight result
// pixels that follow each other must find their slots, at every tap, in the eight 16-byte columns of the
// banks: a slot's four chunks are swizzled by a key that grows by one from result pixel to result pixel,
// across ends of rows and images too, and a slot's number has the key's parity. At stride 2 rows and columns
// are stored by parity, so that neighbouring result pixels have neighbouring slots there as well.
#pragma once

#include "cuda/conv/mma.cuh"
#include "cuda/conv/prologue.cuh"
#include "cuda/conv/result.cuh"
#include "cuda/conv/tile.cuh"

namespace fusedres::cuda {

// Which rows of which images a tile touches.
struct PatchRows {
  int image, row;  // of the first pixel
  int first_rows;  // result rows in the first image
  int slot_rows;   // of the patch, all images
  int images;

  __device__ PatchRows(const ConvParams& p, const PixelClass& c, int first_pixel, int pixels) {
    uint32_t in_image, ignored;
    image = c.by_image.divide(first_pixel, in_image);
    row = c.by_columns.divide(in_image, ignored);
    const int last_image = c.by_image.divide(first_pixel + pixels - 1, in_image);
    const int last_row = c.by_columns.divide(in_image, ignored);
    images = last_image - image + 1;
    first_rows = (images == 1 ? last_row + 1 : c.rows) - row;
    const int whole = c.rows + p.patch.extra_rows;
    slot_rows = first_rows + p.patch.extra_rows;
    if (images > 1) slot_rows += (images - 2) * whole + last_row + 1 + p.patch.extra_rows;
  }

  // Slot row of result row `line` of the image-th image, counted from the tile's first.
  __device__ int slot_row(const ConvParams& p, const PixelClass& c, int of_image, int line) const {
    if (of_image == 0) return line - row;
    return first_rows + p.patch.extra_rows + (of_image - 1) * (c.rows + p.patch.extra_rows) + line;
  }
};

// The key goes into the top three bits of a word, the slot below: one addition moves both to another tap.
__device__ __forceinline__ uint32_t slot_word(int slot, int key) {
  return static_cast<uint32_t>(slot) | static_cast<uint32_t>(key) << 29;
}

// Byte offset of the slot's chunk that the word's key stands for, in the patch.
__device__ __forceinline__ uint32_t slot_address(uint32_t word) { return (word << 6) + ((word >> 30) << 4); }

// Copies patches, a chunk of the reduction at a time, into one of two buffers in turn.
template <typename T, typename Tile, typename Prologue>
class PatchSource {
 public:
  static constexpr int kSlotsAtOnce = Tile::kThreads / kSlotChunks;
  static constexpr int kPiecesPerTap =
      kPatchSlotsPerTap / kSlotsAtOnce;  // copies of each source a thread makes
  static constexpr int kChannels = kSlotBytes / static_cast<int>(sizeof(T));
  static_assert(Tile::kDepthBytes == kSlotBytes && kPatchSlotsPerTap % kSlotsAtOnce == 0);

  // The table of slots lies at `shared`, the buffers behind it. The caller synchronises before the first
  // copy.
  __device__ PatchSource(const ConvParams& p, const PixelClass& c, const TilePlace& place, char* shared)
      : p_(p),
        c_(c),
        rows_(p, c, place.first_pixel, min(Tile::kM, c.pixels - place.first_pixel)),
        table_(reinterpret_cast<int*>(shared)),
        patches_(shared + p.patch.slots * sizeof(int)),
        group_(place.group * p.depth),
        first_slot_(threadIdx.x / kSlotChunks),
        mine_(threadIdx.x % kSlotChunks * kPerChunk<T>),
        chunk_(threadIdx.x % kSlotChunks * 16),
        pixel_bytes_(p.source_channels * static_cast<int>(sizeof(T))),
        slots_((p.patch.step - 1) * p.patch.plane + rows_.slot_rows * p.patch.pitch) {
    const int64_t pixel = static_cast<int64_t>(rows_.image) * p.source_h * p.source_w;
    origin_ = static_cast<const T*>(p.source) + pixel * p.source_channels + group_ + mine_;
    if constexpr (Prologue::kSources == 2) {
      to_other_ = static_cast<const char*>(p.prologue.other) - static_cast<const char*>(p.source);
      has_other_ = p.prologue.other != nullptr;
    }
    for (int slot = threadIdx.x; slot < slots_; slot += Tile::kThreads) table_[slot] = entry(slot);
    start(0, 0);
  }

  __device__ int buffer_bytes() const { return p_.patch.slots * kSlotBytes; }
  __device__ uint32_t patches() const { return shared_address(patches_); }

  // The next copies are of the channels from `channel` on, into the buffer that starts at `buffer`.
  __device__ void start(int channel, int buffer) {
    constexpr int kNever = 0x7fffffff;
    next_slot_ = channel < p_.depth ? first_slot_ : kNever - kMaxPatchTaps * kPatchSlotsPerTap;
    next_to_ = patches() + buffer + first_slot_ * kSlotBytes;
    next_from_ = reinterpret_cast<const char*>(origin_ + channel);
    least_entry_ = channel + mine_ < p_.depth ? 0 : kNever;
  }

  __device__ bool done() const { return next_slot_ >= slots_; }

  // Issues the thread's next copy. With two sources the second goes to the third buffer, `other_ahead` bytes
  // on, which this thread alone reads.
  __device__ void copy(int other_ahead) {
    if (next_slot_ < slots_) {
      const int entry = table_[next_slot_];
      const uint32_t to = next_to_ + ((entry + chunk_) & 0x30);
      const char* const from = next_from_ + static_cast<int64_t>(entry >> 6) * pixel_bytes_;
      const bool valid = entry >= least_entry_;
      cp_async<16>(to, from, valid);
      if constexpr (Prologue::kSources == 2) {
        cp_async<16>(to + other_ahead, from + to_other_, valid && has_other_);
      }
    }
    next_slot_ += kSlotsAtOnce;
    next_to_ += kSlotsAtOnce * kSlotBytes;
  }

  // Forms what this thread copied of the channels from `channel` on.
  __device__ void form(int channel, int buffer) const {
    if constexpr (Prologue::kForms) {
      if (channel + mine_ >= p_.depth) return;
      const typename Prologue::template Coefficients<T, true> form(
          p_.prologue, group_ + channel + mine_, kPerChunk<T>);
#pragma unroll 1
      for (int slot = first_slot_; slot < slots_; slot += kSlotsAtOnce) {
        const int entry = table_[slot];
        if (entry < 0) continue;
        char* const mine = patches_ + slot * kSlotBytes + ((entry + chunk_) & 0x30);
        uint4 other{};
        if constexpr (Prologue::kSources == 2) {
          other = *reinterpret_cast<const uint4*>(mine + 2 * buffer_bytes());
        }
        uint4* const value = reinterpret_cast<uint4*>(mine + buffer);
        *value = form(*value, other);
      }
    }
  }

  // Where a result pixel of the tile finds a chunk of its source at the first tap.
  __device__ uint32_t word(int pixel, int chunk) const {
    if (pixel >= c_.pixels) return 0;  // of the rows that are not stored: any slot that is written
    uint32_t in_image, column;
    const int image = static_cast<int>(c_.by_image.divide(pixel, in_image)) - rows_.image;
    const int line = c_.by_columns.divide(in_image, column);
    const int slot = rows_.slot_row(p_, c_, image, line) * p_.patch.pitch + static_cast<int>(column);
    return slot_word(slot, image * c_.rows * c_.columns + static_cast<int>(in_image) + 2 * chunk);
  }

 private:
  // What a slot holds: 64 * its pixel of the source, counted from the first image's, + 16 * what its chunks
  // are XORed with; or a negative number for zeros. Rows and columns count from the tile's first row, and
  // from column 0, at the first tap.
  __device__ int entry(int slot) const {
    const PatchParams& patch = p_.patch;
    const int row_parity = slot / patch.plane, in_plane = slot - row_parity * patch.plane;
    int line = in_plane / patch.pitch;
    const int in_row = in_plane - line * patch.pitch;
    const int column_parity = in_row / patch.half, column = in_row - column_parity * patch.half;
    int image = 0, top = rows_.row, result_rows = rows_.first_rows;
    if (line >= rows_.first_rows + patch.extra_rows) {
      const int whole = c_.rows + patch.extra_rows;
      line -= rows_.first_rows + patch.extra_rows;
      image = 1 + line / whole;
      line -= (image - 1) * whole;
      top = 0;
      result_rows = c_.rows;
    }
    const int from_top = line * patch.step + row_parity, from_left = column * patch.step + column_parity;
    const bool wanted = image < rows_.images && column_parity < patch.step &&
                        from_top <= (result_rows - 1) * patch.step + (c_.taps_h - 1) * c_.tap_step_h &&
                        from_left <= (c_.columns - 1) * patch.step + (c_.taps_w - 1) * c_.tap_step_w;
    const int h = top * patch.step + from_top + c_.source_first_h, w = from_left + c_.source_first_w;
    const bool inside = static_cast<unsigned>(h) < static_cast<unsigned>(p_.source_h) &&
                        static_cast<unsigned>(w) < static_cast<unsigned>(p_.source_w);
    if (!wanted || !inside) return -1;
    const int key = image * c_.rows * c_.columns + (top + line) * c_.columns + column;
    return ((image * p_.source_h + h) * p_.source_w + w) << 6 | (key & 6) << 3;
  }

  const ConvParams& p_;
  const PixelClass& c_;
  const PatchRows rows_;
  int* const table_;
  char* const patches_;
  const int group_;  // its first source channel
  const int first_slot_, mine_;
  const int chunk_;
  const int pixel_bytes_;
  const int slots_;  // up to the last that the tile uses
  const T* origin_;  // the thread's chunk in the first image's first pixel
  int next_slot_, least_entry_;
  uint32_t next_to_;
  const char* next_from_;
  int64_t to_other_ = 0;
  bool has_other_ = false;
};

}  // namespace fusedres::cuda
