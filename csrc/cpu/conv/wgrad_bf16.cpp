#include "cpu/conv/wgrad_bf16.h"

#include <algorithm>

namespace fusedres::conv {
namespace {

// A block's copies, 32 KB each, and the sums that a tile leaves: 64 rows added beside 16 x 4 multiplications.
constexpr int64_t kChunkPixels = 512;
// The copy of x that a block of filters runs over: half of L2.
constexpr int64_t kCopiedBytes = 1 << 20;
constexpr int64_t kSums = kBlock * kBlock;

// Channels of A lie an odd number of cache lines apart, in different sets of L1.
int64_t odd_lines(int64_t pixels) { return (ceil_div(pixels, 32) | 1) * 32; }

}  // namespace

struct WgradBf16::Memory {
  BFloat16 *a, *b;
  float* sums;
  int64_t a_pitch, a_plane, a_block, b_block;  // elements
  int64_t block;                               // blocks of channels copied at once
  int64_t bytes;
};

WgradBf16::WgradBf16(
    const WgradBf16Kernels& kernels, const Filter& filter, const Map& x, const Activation& activation,
    const Map& dy, const WeightGradient<BFloat16>& dw)
    : kernels_(kernels),
      filter_(filter),
      x_(x),
      dy_(dy),
      activation_(activation),
      dw_(dw),
      planes_h_(std::min(filter.stride_h, filter.rows)),
      planes_w_(std::min(filter.stride_w, filter.cols)),
      pitch_(dy.width + (filter.cols - 1) / filter.stride_w),
      chunks_(dy.height, pitch_, dy.images, kChunkPixels),
      lines_(chunks_.lines + (filter.rows - 1) / filter.stride_h),
      pixels_(round_up(chunks_.images * lines_ * pitch_, kBlock)),
      reach_((filter.rows - 1) / filter.stride_h * pitch_ + (filter.cols - 1) / filter.stride_w) {}

// The larger operand is shared out, and the smaller copied by each thread.
WgradBf16::Share WgradBf16::share_of(int64_t part, int64_t parts) const {
  const Range filters{0, ceil_div(filter_.out_channels, kBlock)};
  const Range channels{0, ceil_div(filter_.in_channels, kBlock)};
  const bool large_x = x_.images * x_.image > dy_.images * dy_.image;
  const bool by_channels = channels.end >= parts && (large_x || filters.end < parts);
  return by_channels ? Share{filters, share(channels.end, part, parts)}
                     : Share{share(filters.end, part, parts), channels};
}

WgradBf16::Memory WgradBf16::memory_of(const Share& share, char* scratch) const {
  const int64_t filters = share.filters.end - share.filters.begin;
  const int64_t channels = std::max<int64_t>(share.channels.end - share.channels.begin, 1);
  Memory memory;
  memory.a_pitch = odd_lines(pixels_ + reach_);
  memory.a_plane = kBlock * memory.a_pitch;
  memory.a_block = planes_h_ * planes_w_ * memory.a_plane;
  memory.b_block = pixels_ * kBlock;
  const int64_t fitting = std::clamp<int64_t>(kCopiedBytes / 2 / memory.a_block, 1, channels);
  memory.block = ceil_div(channels, ceil_div(channels, fitting));
  memory.a = reinterpret_cast<BFloat16*>(scratch);
  memory.b = memory.a + memory.block * memory.a_block;
  memory.sums = reinterpret_cast<float*>(memory.b + filters * memory.b_block);
  memory.bytes = 2 * (memory.block * memory.a_block + filters * memory.b_block) +
                 4 * memory.block * filters * taps() * kSums;
  return memory;
}

int64_t WgradBf16::part_bytes(int64_t parts) const {
  int64_t most = 0;
  for (int64_t part = 0; part < parts; ++part)
    most = std::max(most, memory_of(share_of(part, parts), nullptr).bytes);
  return round_up(most, 64);
}

void WgradBf16::list_input(
    const WgradChunk& chunk, int64_t plane, std::vector<const BFloat16*>& pixels) const {
  pixels.assign(round_up(pixels_ + reach_, kBlock), nullptr);
  const int64_t lines = chunk.lines.end - chunk.lines.begin + (filter_.rows - 1) / filter_.stride_h;
  for (int64_t n = chunk.images.begin; n < chunk.images.end; ++n)
    for (int64_t line = 0; line < lines; ++line) {
      const int64_t y = (chunk.lines.begin + line) * filter_.stride_h + plane / planes_w_ - filter_.pad_h;
      if (y < 0 || y >= x_.height) continue;
      const BFloat16** to = pixels.data() + ((n - chunk.images.begin) * lines_ + line) * pitch_;
      for (int64_t i = 0; i < pitch_; ++i) {
        const int64_t at = i * filter_.stride_w + plane % planes_w_ - filter_.pad_w;
        if (at >= 0 && at < x_.width) to[i] = reinterpret_cast<const BFloat16*>(x_.at(n, y, at));
      }
    }
}

void WgradBf16::list_gradient(const WgradChunk& chunk, std::vector<const BFloat16*>& pixels) const {
  pixels.assign(pixels_, nullptr);
  for (int64_t n = chunk.images.begin; n < chunk.images.end; ++n)
    for (int64_t line = chunk.lines.begin; line < chunk.lines.end; ++line) {
      const int64_t at = ((n - chunk.images.begin) * lines_ + line - chunk.lines.begin) * pitch_;
      for (int64_t i = 0; i < dy_.width; ++i)
        pixels[at + i] = reinterpret_cast<const BFloat16*>(dy_.at(n, line, i));
    }
}

void WgradBf16::copy(
    const WgradChunk& chunk, const Share& share, Range channels, const Memory& memory) const {
  thread_local std::vector<const BFloat16*> pixels, block;
  const auto blocks = [&](int64_t first) {
    block = pixels;
    for (const BFloat16*& pixel : block)
      if (pixel != nullptr) pixel += first;
    return block.data();
  };
  for (int64_t plane = 0; plane < planes_h_ * planes_w_; ++plane) {
    list_input(chunk, plane, pixels);
    for (int64_t c = channels.begin; c < channels.end; ++c) {
      BFloat16* to = memory.a + (c - channels.begin) * memory.a_block + plane * memory.a_plane;
      kernels_.transpose(
          blocks(c * kBlock), static_cast<int64_t>(pixels.size()),
          std::min(kBlock, filter_.in_channels - c * kBlock), activation_.from(c * kBlock), to,
          memory.a_pitch);
    }
  }
  list_gradient(chunk, pixels);
  for (int64_t k = share.filters.begin; k < share.filters.end; ++k)
    kernels_.interleave(
        blocks(k * kBlock), pixels_, std::min(kBlock, filter_.out_channels - k * kBlock),
        memory.b + (k - share.filters.begin) * memory.b_block);
}

void WgradBf16::multiply(
    const WgradChunk& chunk, const Share& share, Range channels, const Memory& memory) const {
  const int64_t filters = share.filters.end - share.filters.begin;
  WgradBf16Tile work{};
  work.a_pitch = memory.a_pitch;
  work.pixels = pixels_;
  work.add = chunk.images.begin + chunk.lines.begin > 0;
  for (int64_t c = 0; c < channels.end - channels.begin; ++c)
    for (int64_t k = 0; k < filters; ++k)
      for (int64_t tap = 0; tap < taps(); ++tap) {
        const int64_t r = tap / filter_.cols, s = tap % filter_.cols;
        const int64_t plane = r % planes_h_ * planes_w_ + s % planes_w_;
        const int64_t shift = r / filter_.stride_h * pitch_ + s / filter_.stride_w;
        work.a = memory.a + c * memory.a_block + plane * memory.a_plane + shift;
        work.b = memory.b + k * memory.b_block;
        work.sums = memory.sums + ((c * filters + k) * taps() + tap) * kSums;
        kernels_.multiply(work);
      }
}

void WgradBf16::store(const Share& share, Range channels, const Memory& memory) const {
  const int64_t filters = share.filters.end - share.filters.begin;
  BFloat16 narrow[kSums];
  for (int64_t c = channels.begin; c < channels.end; ++c)
    for (int64_t k = share.filters.begin; k < share.filters.end; ++k)
      for (int64_t tap = 0; tap < taps(); ++tap) {
        const int64_t block = (c - channels.begin) * filters + k - share.filters.begin;
        kernels_.narrow(memory.sums + (block * taps() + tap) * kSums, kSums, narrow);
        const int64_t c_count = std::min(kBlock, filter_.in_channels - c * kBlock);
        const int64_t k_count = std::min(kBlock, filter_.out_channels - k * kBlock);
        BFloat16* to = dw_.at(k * kBlock, c * kBlock) + tap * dw_.tap;
        for (int64_t kk = 0; kk < k_count; ++kk, to += dw_.filter)
          for (int64_t cc = 0; cc < c_count; ++cc) to[cc * dw_.channel] = narrow[cc * kBlock + kk];
      }
}

void WgradBf16::run(int64_t part, int64_t parts, char* scratch) const {
  const Share own = share_of(part, parts);
  if (own.filters.begin == own.filters.end || own.channels.begin == own.channels.end) return;
  const Memory memory = memory_of(own, scratch + part * part_bytes(parts));
  kernels_.enter();
  for (int64_t first = own.channels.begin; first < own.channels.end; first += memory.block) {
    const Range channels{first, std::min(first + memory.block, own.channels.end)};
    chunks_.for_each(dy_.height, dy_.images, [&](const WgradChunk& chunk) {
      copy(chunk, own, channels, memory);
      multiply(chunk, own, channels, memory);
    });
    store(own, channels, memory);
  }
  kernels_.leave();
}

}  // namespace fusedres::conv
