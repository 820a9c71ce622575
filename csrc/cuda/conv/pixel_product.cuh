// Products of two operands that lie pixel by pixel in shared memory, summed over the pixels: a weight
// gradient reads both of its operands across their rows.
#pragma once

#include "cuda/conv/chunk.cuh"
#include "cuda/conv/mma.cuh"
#include "cuda/conv/tile.cuh"

namespace fusedres::cuda {

// kPixels rows of kChannels, in panels of 128 bytes of channels; chunks are XORed by their row so that
// neither 16-byte copies along a row nor fragment loads across rows meet a bank conflict.
template <typename T, int kPixels, int kChannels>
struct PixelTile {
  static constexpr int kValues = kPerChunk<T>;
  static constexpr int kChunks = kChannels / kValues;
  static constexpr int kPanelBytes = kPixels * 128;
  static constexpr int kBytes = kChunks / 8 * kPanelBytes;
  static_assert(kChunks % 8 == 0, "panels are 8 chunks");

  // ldmatrix takes 8 rows of one chunk, so all 8 masks differ; TF32's fragments take 4 rows of two
  // neighbouring chunks.
  __device__ static constexpr int mask(int row) { return sizeof(T) == 2 ? row % 8 : row % 4 * 2; }

  __device__ static constexpr uint32_t at(int row, int chunk) {
    return static_cast<uint32_t>(chunk / 8 * kPanelBytes + row * 128 + ((chunk % 8) ^ mask(row)) * 16);
  }
};

// A warp's fragments of one operand: blocks of 16 channels x kDepth pixels, each as 2 x 2 registers of 8
// channels and half the pixels. mma takes the left operand's channels first, and wants the right one's two
// registers side by side.
template <typename T, int kPixels, int kChannels, int kWarpChannels, bool kLeft>
struct PixelFragments {
  using Layout = PixelTile<T, kPixels, kChannels>;
  static constexpr int kDepth = kMmaDepthBytes / static_cast<int>(sizeof(T));
  static constexpr int kBlocks = kWarpChannels / 16;
  static constexpr bool kHalves = sizeof(T) == 2;
  static constexpr int kLoads = kHalves ? kBlocks : kBlocks / 2;  // 16 bytes a lane; of TF32, 32 channels
  static_assert(kHalves || kWarpChannels % 32 == 0);

  uint32_t registers[kBlocks][4];

  // The register of a half of the channels, and of a half of the pixels.
  __device__ static constexpr int index(int half, int later) {
    return kLeft ? half + 2 * later : 2 * half + later;
  }

  // Where the lane reads in pixel 0's step, for each of its loads.
  __device__ static void offsets(int first_channel, int lane, uint32_t (&offset)[kLoads]) {
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const int matrix = lane / 8, half = kLeft ? matrix % 2 : matrix / 2,
                later = kLeft ? matrix / 2 : matrix % 2;
      offset[i] = kHalves ? Layout::at(later * 8 + lane % 8, first_channel / 8 + 2 * i + half)
                          : Layout::at(lane % 4, first_channel / 4 + 8 * i + lane / 4);
    }
  }

  __device__ void load(const unsigned char* tile, int step, const uint32_t (&offset)[kLoads]) {
    const unsigned char* rows = tile + step * kDepth * 128;
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      if constexpr (kHalves) {
        ldmatrix_x4_trans(registers[i], shared_address(rows + offset[i]));
      } else {
#pragma unroll
        for (int d = 0; d < 2; ++d) {
          const uint4 four = *reinterpret_cast<const uint4*>(rows + offset[i] + d * 4 * 128);
          registers[2 * i][index(0, d)] = to_tf32(four.x), registers[2 * i][index(1, d)] = to_tf32(four.y);
          registers[2 * i + 1][index(0, d)] = to_tf32(four.z);
          registers[2 * i + 1][index(1, d)] = to_tf32(four.w);
        }
      }
    }
  }

  // The channel, within the warp's, of value `index` of 8 in half `half` of a block.
  __device__ static constexpr int channel(int block, int half, int index) {
    return kHalves ? block * 16 + half * 8 + index : block / 2 * 32 + index * 4 + block % 2 * 2 + half;
  }
};

// A warp's part of the result: kWarpM channels of the left operand x kWarpN of the right one.
template <typename Left, typename Right>
struct PixelProduct {
  float sums[Left::kBlocks][2 * Right::kBlocks][4] = {};

  template <typename T>
  __device__ void add(const Left& left, const Right& right) {
#pragma unroll
    for (int i = 0; i < Left::kBlocks; ++i) {
#pragma unroll
      for (int j = 0; j < 2 * Right::kBlocks; ++j) {
        const uint32_t(&b)[4] = right.registers[j / 2];
        mma<T>(sums[i][j], left.registers[i], b[j % 2 * 2], b[j % 2 * 2 + 1]);
      }
    }
  }

  // Hands store(row, column, values) runs of kRun neighbouring columns, each lane its own.
  static constexpr int kRun = Right::kHalves ? 2 : 4;
  template <typename Store>
  __device__ void each(int lane, const Store& store) const {
#pragma unroll
    for (int i = 0; i < Left::kBlocks; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = Left::channel(i, half, lane / 4);
        if constexpr (Right::kHalves) {
#pragma unroll
          for (int j = 0; j < 2 * Right::kBlocks; ++j) {
            const float values[2] = {sums[i][j][2 * half], sums[i][j][2 * half + 1]};
            store(row, Right::channel(j / 2, j % 2, lane % 4 * 2), values);
          }
        } else {
#pragma unroll
          for (int j = 0; j < 2 * Right::kBlocks; j += 4) {
#pragma unroll
            for (int e = 2 * half; e < 2 * half + 2; ++e) {
              const float values[4] = {
                  sums[i][j][e], sums[i][j + 1][e], sums[i][j + 2][e], sums[i][j + 3][e]};
              store(row, Right::channel(j / 2, 0, lane % 4 * 2 + e % 2), values);
            }
          }
        }
      }
    }
  }
};

}  // namespace fusedres::cuda
