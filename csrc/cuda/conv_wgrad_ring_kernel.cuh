// The weight gradient of a 3 x 3 that keeps the map's size: every pixel of x is loaded, and formed, once for
// all nine taps. Output pixel m reads input pixel m + a constant at a tap, so x passes through a ring of
// pixels in shared memory; taps on padding read zeros beside it.
#pragma once

#include "cuda/conv/swizzle.cuh"
#include "cuda/conv_wgrad_kernel.cuh"

namespace fusedres::cuda {

constexpr int kWgradTaps = 9;
constexpr int kWgradRingPixels = 256;
constexpr int kWgradRingChannels = 32;
constexpr int kWgradRingOutputs = 64;
// 64 outputs x 9 taps of 32 channels: 192 operations a byte from L2, where a tile of 128 x 128 that fetches
// every tap for itself does 64.

template <typename T_, WgradFormed kFormed_>
struct WgradRingTraits {
  using T = T_;
  static constexpr int kM = kWgradRingOutputs, kN = kWgradRingChannels;
  static constexpr bool kFormed = kFormed_ != WgradFormed::kNone, kActivated = kFormed_ == WgradFormed::kBoth;
  static constexpr int kStages = 3;
  using LeftTile = PixelTile<T, kWgradPixels, kM>;
  using Left = PixelFragments<T, kWgradPixels, kM, kM / 2, true>;
  static constexpr int kSteps = kWgradPixels / Left::kDepth;
  static constexpr int kRowBytes = kWgradRingChannels * 2;
  static constexpr int kRingBytes = kWgradRingPixels * kRowBytes;
  static constexpr int kZeroBytes = 8 * kRowBytes;  // as many rows as ldmatrix takes, each with its banks
  static constexpr int kStageBytes = LeftTile::kBytes * (kFormed ? 2 : 1);
  static constexpr int kVectorValues = (kFormed ? 3 * kM : 0) + (kActivated ? 2 * kWgradRingChannels : 0);
  static constexpr int kSharedBytes =
      kRingBytes + kZeroBytes + kStages * kStageBytes + kVectorValues * static_cast<int>(sizeof(float));
};

// x in the ring, 32 pixels (a row of 4 chunks each) at a time; a thread has one chunk of them.
template <typename Traits>
struct RingRows {
  using T = typename Traits::T;
  static constexpr int kChunks = kWgradRingChannels / kPerChunk<T>;
  static_assert(kWgradThreads == kWgradPixels * kChunks, "a chunk a thread");
  int chunk = threadIdx.x % kChunks, row = threadIdx.x / kChunks;
  int64_t first;  // bytes to the chunk in pixel 0
  int64_t row_bytes;
  bool inside;

  __device__ RingRows(const ConvWgradParams& p, int channel, int group)
      : first((group * p.group_channels + channel + chunk * kPerChunk<T>)*static_cast<int64_t>(sizeof(T))),
        row_bytes(int64_t{p.channels} * static_cast<int>(sizeof(T))),
        inside(channel + chunk * kPerChunk<T> < p.group_channels) {}

  __device__ uint32_t at(int first_pixel) const {
    return Swizzle<kChunks>::at((first_pixel + row) & (kWgradRingPixels - 1), chunk);
  }

  __device__ void load(const ConvWgradParams& p, int first_pixel, unsigned char* ring) const {
    const int pixel = first_pixel + row;
    const bool valid = inside && static_cast<uint32_t>(pixel) < static_cast<uint32_t>(p.pixels);
    cp_async(shared_address(ring + at(first_pixel)), address(p.x, first + pixel * row_bytes), valid);
  }

  // What lies outside of x no tap reads.
  __device__ void form(int first_pixel, unsigned char* ring, const float* vectors) const {
    using Vector = ChunkVector<T, kWgradRingChannels>;
    uint4* const place = reinterpret_cast<uint4*>(ring + at(first_pixel));
    *place =
        activated<T>(*place, Vector::get(vectors, chunk), Vector::get(vectors + kWgradRingChannels, chunk));
  }
};

// A warp's right operand: 16 pixels x 16 channels at a tap.
struct RingLane {
  uint32_t ring, zeros;  // shared addresses
  int pixel;             // the lane's, of a step's 16
  uint32_t chunk_bytes;  // of the row to the lane's chunk

  __device__ RingLane(uint32_t ring_address, uint32_t zero_address, int channel, int lane)
      : ring(ring_address),
        zeros(zero_address),
        pixel(lane / 8 % 2 * 8 + lane % 8),
        chunk_bytes(static_cast<uint32_t>(channel / 8 + lane / 16) * kChunkBytes) {}

  // Bit 3 r + s: tap (r, s) of output pixel m reads a pixel, not padding.
  __device__ static uint32_t taps_inside(const ConvWgradParams& p, int m) {
    uint32_t within, q;
    p.out_pixels.divide(static_cast<uint32_t>(m), within);
    const int h = static_cast<int>(p.out_width.divide(within, q)), w = static_cast<int>(q);
    const uint32_t rows = (h >= p.padding_h ? 1u : 0u) | 8u | (h + p.padding_h < p.height ? 64u : 0u);
    const uint32_t columns = (w >= p.padding_w ? 1u : 0u) | 2u | (w + p.padding_w < p.width ? 4u : 0u);
    return rows * columns;
  }

  // Where the lane reads at `tap`, `offset` pixels from pixel m.
  __device__ uint32_t at(int m, int offset, uint32_t inside, int tap) const {
    constexpr uint32_t kRing = kWgradRingPixels * 64 - 1, kRows = 8 * 64 - 1;  // bytes, less 1: masks
    const uint32_t plain = (static_cast<uint32_t>(m + offset) * 64 + chunk_bytes) & kRing;
    const uint32_t place = plain ^ (plain >> 3 & 48);  // Swizzle<4>
    return inside >> tap & 1 ? ring + place : zeros + (place & kRows);
  }
};

template <typename Traits>
__global__ void __launch_bounds__(kWgradThreads, 2)
    conv_wgrad_ring_kernel(const __grid_constant__ ConvWgradParams p) {
  using T = typename Traits::T;
  using Left = typename Traits::Left;
  constexpr int kStages = Traits::kStages, kSteps = Traits::kSteps;
  extern __shared__ __align__(128) unsigned char shared[];
  unsigned char* const ring = shared;
  unsigned char* const zeros = ring + Traits::kRingBytes;
  unsigned char* const tiles = zeros + Traits::kZeroBytes;
  float* const vectors = reinterpret_cast<float*>(tiles + kStages * Traits::kStageBytes);

  const WgradBlock block(p, Traits::kM, kWgradRingChannels);  // first_column: a channel
  GradientRows<Traits> gradient(p, block.first_output, block.group, block.begin);
  const RingRows<Traits> input(p, block.first_column, block.group);
  const int halo = p.padding_h * p.width + p.padding_w;
  const int ahead = (halo + kWgradPixels - 1) / kWgradPixels;  // x runs so many stages before dz

  auto load_gradient = [&](int stage, int slot) {
#pragma unroll
    for (int i = 0; i < GradientRows<Traits>::Chunks::kRows; ++i) {
      gradient.load(p, i, block.begin + stage * kWgradPixels, block.end, tiles + slot * Traits::kStageBytes);
    }
  };
  auto form_gradient = [&](int stage, int slot) {
    gradient.form(
        0, GradientRows<Traits>::Chunks::kRows, block.begin + stage * kWgradPixels, block.end,
        tiles + slot * Traits::kStageBytes, vectors);
  };
  auto first_pixel = [&](int stage) { return block.begin + stage * kWgradPixels; };

  for (int i = threadIdx.x; i < Traits::kZeroBytes / 16; i += kWgradThreads) {
    reinterpret_cast<uint4*>(zeros)[i] = {0, 0, 0, 0};
  }
  for (int stage = -ahead; stage < ahead; ++stage) input.load(p, first_pixel(stage), ring);
#pragma unroll
  for (int s = 0; s < kStages - 1; ++s) {
    load_gradient(s, s);
    input.load(p, first_pixel(s + ahead), ring);
    cp_async_commit();
  }
  if constexpr (Traits::kFormed) {
    load_wgrad_vectors<Traits>(p, block, vectors);
    cp_async_wait<kStages - 2>();
    __syncthreads();  // the vectors
    form_gradient(0, 0);
    if constexpr (Traits::kActivated) {
      for (int stage = -ahead; stage <= ahead; ++stage) {
        input.form(first_pixel(stage), ring, vectors + 3 * Traits::kM);
      }
    }
  }

  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  const int warp_output = warp % 2 * (Traits::kM / 2), warp_channel = warp / 2 * (kWgradRingChannels / 2);
  uint32_t left_offset[Left::kLoads];
  Left::offsets(warp_output, lane, left_offset);
  const RingLane lane_input(shared_address(ring), shared_address(zeros), warp_channel, lane);
  float sums[kWgradTaps][Left::kBlocks][2][4] = {};

  int slot = 0;
  for (int stage = 0; stage < block.stages; ++stage) {
    const int next_slot = slot + 1 == kStages ? 0 : slot + 1;
    const int free_slot = slot == 0 ? kStages - 1 : slot - 1;
    cp_async_wait<Traits::kFormed ? kStages - 3 : kStages - 2>();
    __syncthreads();
    load_gradient(stage + kStages - 1, free_slot);
    input.load(p, first_pixel(stage + kStages - 1 + ahead), ring);
    cp_async_commit();
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      Left left;
      left.load(tiles + slot * Traits::kStageBytes, step, left_offset);
      const int m = first_pixel(stage) + step * Left::kDepth + lane_input.pixel;
      const uint32_t inside = RingLane::taps_inside(p, m);
      if (Traits::kFormed && step == 0) form_gradient(stage + 1, next_slot);
      if (Traits::kActivated && step == 1) {
        input.form(first_pixel(stage + 1 + ahead), ring, vectors + 3 * Traits::kM);
      }
#pragma unroll
      for (int tap = 0; tap < kWgradTaps; ++tap) {
        uint32_t right[4];
        const int offset = (tap / 3 - 1) * p.dilation_h * p.width + (tap % 3 - 1) * p.dilation_w;
        ldmatrix_x4_trans(right, lane_input.at(m, offset, inside, tap));
#pragma unroll
        for (int i = 0; i < Left::kBlocks; ++i) {
          mma<T>(sums[tap][i][0], left.registers[i], right[0], right[1]);
          mma<T>(sums[tap][i][1], left.registers[i], right[2], right[3]);
        }
      }
    }
    slot = next_slot;
  }
  cp_async_wait<0>();

  const int64_t first_row = static_cast<int64_t>(blockIdx.z) * p.outputs + block.group * p.group_outputs;
  float* const part = p.parts + first_row * p.columns;
#pragma unroll
  for (int tap = 0; tap < kWgradTaps; ++tap) {
#pragma unroll
    for (int i = 0; i < Left::kBlocks; ++i) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int output = block.first_output + warp_output + i * 16 + e / 2 * 8 + lane / 4;
        const int channel = block.first_column + warp_channel + e % 2 * 8 + lane % 4 * 2;
        if (output >= p.group_outputs || channel >= p.group_channels) continue;
        const float2 pair{sums[tap][i][e % 2][e / 2 * 2], sums[tap][i][e % 2][e / 2 * 2 + 1]};
        const int64_t at = static_cast<int64_t>(output) * p.columns + tap * p.group_channels + channel;
        *reinterpret_cast<float2*>(part + at) = pair;
      }
    }
  }
}

}  // namespace fusedres::cuda
