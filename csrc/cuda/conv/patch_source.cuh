// The left operand read from a patch: the source pixels that a tile needs, once in shared memory for all
// taps.
//
// A tile is consecutive pixels of the result, so its patch is some whole rows of one or more images, with
// their halo. A pixel's channels of one reduction chunk are a slot of 64 bytes. For ldmatrix, eight result
// pixels that follow each other must find their slots, at every tap, in the eight 16-byte columns of the
// banks: a slot's four chunks are swizzled by a key that grows by one from result pixel to result pixel,
// across ends of rows and images too, and a slot's number has the key's parity.
//
// At stride 2 neighbouring result pixels must have neighbouring slots as well, so rows and columns are stored
// by parity; and a patch of all four parities has up to 816 slots on ResNet's maps, in two buffers too much
// for two blocks an SM. So a patch holds two of them, what one phase of the taps reads: in phase 0 even
// columns of even rows and odd ones of odd rows, for 5 of a 3x3's taps, in phase 1 the others, for 4. A pitch
// of slots is a pair of rows, even then odd.
#pragma once

#include "cuda/conv/mma.cuh"
#include "cuda/conv/prologue.cuh"
#include "cuda/conv/result.cuh"
#include "cuda/conv/tile.cuh"

namespace fusedres::cuda {

// Which rows of which images a tile touches, and where their slots begin.
struct PatchRows {
  int image, row;   // of the first pixel
  int first_rows;   // result rows in the first image
  int first_slots;  // of the first image
  int image_slots;  // of every other whole one
  int slots;        // of the patch, all images
  int images;

  __device__ PatchRows(const ConvParams& p, const PixelClass& c, int first_pixel, int pixels) {
    uint32_t in_image, ignored;
    image = c.by_image.divide(first_pixel, in_image);
    row = c.by_columns.divide(in_image, ignored);
    const int last_image = c.by_image.divide(first_pixel + pixels - 1, in_image);
    const int last_row = c.by_columns.divide(in_image, ignored);
    images = last_image - image + 1;
    first_rows = (images == 1 ? last_row + 1 : c.rows) - row;
    first_slots = first_rows * p.patch.pitch + p.patch.gap;
    image_slots = c.rows * p.patch.pitch + p.patch.gap;
    slots = first_slots;
    if (images > 1) slots += (images - 2) * image_slots + (last_row + 1) * p.patch.pitch + p.patch.gap;
  }

  // The first slot of result row `line` of the image-th image, counted from the tile's first.
  __device__ int slot(const ConvParams& p, int of_image, int line) const {
    if (of_image == 0) return (line - row) * p.patch.pitch;
    return first_slots + (of_image - 1) * image_slots + line * p.patch.pitch;
  }
};

// The key goes into the top three bits of a word, the slot below: one addition moves both to another tap.
__device__ __forceinline__ uint32_t slot_word(int slot, int key) {
  return static_cast<uint32_t>(slot) | static_cast<uint32_t>(key) << 29;
}

// Byte offset of the slot's chunk that the word's key stands for, in the patch.
__device__ __forceinline__ uint32_t slot_address(uint32_t word) { return (word << 6) + ((word >> 30) << 4); }

// Copies patches, a phase of a chunk of the reduction at a time, into one of two buffers in turn; with two
// phases each has its own.
template <typename T, typename Tile, int kStep_, typename Prologue>
class PatchSource {
 public:
  static constexpr int kStep = kStep_;
  static constexpr int kSlotsAtOnce = Tile::kThreads / kSlotChunks;
  static constexpr int kSlotsPerTap = patch_slots_per_tap(kStep);
  static constexpr int kPiecesPerTap = kSlotsPerTap / kSlotsAtOnce;  // copies of each source a thread makes
  static constexpr int kChannels = kSlotBytes / static_cast<int>(sizeof(T));
  static_assert(Tile::kDepthBytes == kSlotBytes && kSlotsPerTap % kSlotsAtOnce == 0);

  // The tables of slots lie at `shared`, the buffers behind them. The caller synchronises before the first
  // copy.
  __device__ PatchSource(const ConvParams& p, const PixelClass& c, const TilePlace& place, char* shared)
      : p_(p),
        c_(c),
        rows_(p, c, place.first_pixel, min(Tile::kM, c.pixels - place.first_pixel)),
        table_(reinterpret_cast<int*>(shared)),
        patches_(shared + kStep * p.patch.slots * sizeof(int)),
        group_(place.group * p.depth),
        first_slot_(threadIdx.x / kSlotChunks),
        mine_(threadIdx.x % kSlotChunks * kPerChunk<T>),
        chunk_(threadIdx.x % kSlotChunks * 16),
        pixel_bytes_(p.source_channels * static_cast<int>(sizeof(T))) {
    const int64_t pixel = static_cast<int64_t>(rows_.image) * p.source_h * p.source_w;
    origin_ = static_cast<const T*>(p.source) + pixel * p.source_channels + group_ + mine_;
    if constexpr (Prologue::kSources == 2) {
      to_other_ = static_cast<const char*>(p.prologue.other) - static_cast<const char*>(p.source);
      has_other_ = p.prologue.other != nullptr;
    }
    for (int phase = 0; phase < kStep; ++phase) {
      for (int slot = threadIdx.x; slot < rows_.slots; slot += Tile::kThreads) {
        table_[phase * p.patch.slots + slot] = entry(phase, slot);
      }
    }
    start(0, 0, 0);
  }

  __device__ int buffer_bytes() const { return p_.patch.slots * kSlotBytes; }
  __device__ uint32_t patches() const { return shared_address(patches_); }

  // The next copies are of a phase's channels from `channel` on, into the buffer that starts at `buffer`.
  __device__ void start(int phase, int channel, int buffer) {
    constexpr int kNever = 0x7fffffff;
    const int first = kStep == 1 ? 0 : phase * p_.patch.slots;
    next_slot_ = channel < p_.depth ? first + first_slot_ : kNever - kMaxPatchTaps * kSlotsPerTap;
    end_slot_ = first + rows_.slots;
    next_to_ = patches() + buffer + first_slot_ * kSlotBytes;
    next_from_ = reinterpret_cast<const char*>(origin_ + channel);
    least_entry_ = channel + mine_ < p_.depth ? 0 : kNever;
  }

  __device__ bool done() const { return next_slot_ >= end_slot_; }

  // Issues the thread's next copy. With two sources the second goes to the third buffer, `other_ahead` bytes
  // on, which this thread alone reads.
  __device__ void copy(int other_ahead) {
    if (next_slot_ < end_slot_) {
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

  // Forms what this thread copied of a phase's channels from `channel` on.
  __device__ void form(int phase, int channel, int buffer) const {
    if constexpr (Prologue::kForms) {
      if (channel + mine_ >= p_.depth) return;
      const typename Prologue::template Coefficients<T, true> form(
          p_.prologue, group_ + channel + mine_, kPerChunk<T>);
      const int* const table = kStep == 1 ? table_ : table_ + phase * p_.patch.slots;
#pragma unroll 1
      for (int slot = first_slot_; slot < rows_.slots; slot += kSlotsAtOnce) {
        const int entry = table[slot];
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
    const int slot = rows_.slot(p_, image, line) + static_cast<int>(column);
    return slot_word(slot, image * c_.rows * c_.columns + static_cast<int>(in_image) + 2 * chunk);
  }

 private:
  // What a phase's slot holds: 64 * its pixel of the source, counted from the first image's, + 16 * what its
  // chunks are rotated by; or a negative number for zeros. Rows and columns count from the tile's first row,
  // and from column 0, at the first tap.
  __device__ int entry(int phase, int slot) const {
    const PatchParams& patch = p_.patch;
    int image = 0, top = rows_.row, result_rows = rows_.first_rows;
    if (slot >= rows_.first_slots) {
      slot -= rows_.first_slots;
      image = slot / rows_.image_slots;
      slot -= image++ * rows_.image_slots;
      top = 0;
      result_rows = c_.rows;
    }
    const int line = slot / patch.pitch, in_pitch = slot - line * patch.pitch;
    const int row_parity = in_pitch / patch.half, column = in_pitch - row_parity * patch.half;
    const int column_parity = row_parity ^ phase;
    const int from_top = line * kStep + row_parity, from_left = column * kStep + column_parity;
    const bool wanted = row_parity < kStep &&
                        from_top <= (result_rows - 1) * kStep + (c_.taps_h - 1) * c_.tap_step_h &&
                        from_left <= (c_.columns - 1) * kStep + (c_.taps_w - 1) * c_.tap_step_w;
    const int h = top * kStep + from_top + c_.source_first_h, w = from_left + c_.source_first_w;
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
  const T* origin_;  // the thread's chunk in the first image's first pixel
  int next_slot_, end_slot_, least_entry_;
  uint32_t next_to_;
  const char* next_from_;
  int64_t to_other_ = 0;
  bool has_other_ = false;
};

}  // namespace fusedres::cuda
