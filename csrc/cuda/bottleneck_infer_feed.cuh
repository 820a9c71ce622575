// What a bottleneck's matrix instructions read, brought to shared memory some steps ahead of them.
#pragma once

#include "cuda/bottleneck_infer.h"
#include "cuda/conv/mma.cuh"
#include "cuda/conv/swizzle.cuh"

namespace fusedres::cuda {

// kMiddle channels inside; kStages as in BottleneckInferVariant.
template <typename T_, int kMiddle_, bool kResident_, bool kDownsample_, int kStages_>
struct BottleneckTraits {
  using T = T_;
  static constexpr int kMiddle = kMiddle_, kStages = kStages_;
  static constexpr bool kResident = kResident_, kDownsample = kDownsample_;
  static constexpr BottleneckInferVariant kVariant{kMiddle, kResident, kDownsample, kStages};
  static constexpr int kPitch = kVariant.pitch();
  static constexpr int kXBytes = kVariant.x_bytes(), kStageBytes = kVariant.stage_bytes();
  static constexpr int kInnerBytes = kVariant.inner_bytes();
  static constexpr int kSlices = kMiddle / kBottleneckDepth;  // of an intermediate's channels
  static constexpr int kSliceBytes = 2 * kMiddle * kBottleneckDepth;
  static constexpr int kXSliceBytes = 2 * kMiddle * kBottleneckXDepth;
  static_assert(kResident || kSliceBytes <= kStageBytes, "a step without x has the whole stage");
};

// The place of a row of weights among 32: a thread's values of four neighbouring matrix instructions then are
// 8 consecutive channels, 16 bytes to store.
__device__ __forceinline__ int bottleneck_row(int row) {
  return row & ~31 | row % 8 / 2 * 8 | row % 32 / 8 * 2 | row % 2;
}

// kMiddle rows x kDepth channels of weights whose rows are `row_values` long.
template <typename Traits, int kDepth>
__device__ __forceinline__ void load_bottleneck_weights(
    unsigned char* slice, const void* weights, int64_t first, int row_values) {
  constexpr int kChunks = kDepth / 8, kRowsAPass = kBottleneckThreads / kChunks;
  const int chunk = threadIdx.x % kChunks, first_row = threadIdx.x / kChunks;
#pragma unroll
  for (int i = 0; i < Traits::kMiddle / kRowsAPass; ++i) {
    const int row = first_row + i * kRowsAPass;
    const int64_t at = first + static_cast<int64_t>(row) * row_values + chunk * 8;
    cp_async(
        shared_address(slice + Swizzle<kChunks>::at(bottleneck_row(row), chunk)),
        static_cast<const uint16_t*>(weights) + at, true);
  }
}

// Where a tile lies: the image, and its first output pixel.
struct BottleneckPlace {
  int image, row, column;

  __device__ BottleneckPlace(const BottleneckInferParams& p, int tile) {
    const int in_image = tile % (p.tiles_h * p.tiles_w);
    image = tile / (p.tiles_h * p.tiles_w);
    row = in_image / p.tiles_w * kBottleneckTile;
    column = in_image % p.tiles_w * kBottleneckTile;
  }
};

// 16 x 16 pixels from (row, column) on, of which `columns` are wanted, x kBottleneckXDepth channels; outside
// the image zeros.
__device__ __forceinline__ void load_bottleneck_x(
    unsigned char* slice, const BottleneckInferParams& p, int image, int row, int column, int columns,
    int channel) {
  constexpr int kChunks = kBottleneckXDepth / 8;
  constexpr int kPixelsAPass = kBottleneckThreads / kChunks, kRowsAPass = kPixelsAPass / kBottleneckHalo;
  const int chunk = threadIdx.x % kChunks, pixel = threadIdx.x / kChunks;
  const int w = column + pixel % kBottleneckHalo;
  const bool inside =
      static_cast<uint32_t>(w) < static_cast<uint32_t>(p.width) && pixel % kBottleneckHalo < columns;
#pragma unroll
  for (int i = 0; i < kBottleneckHalo / kRowsAPass; ++i) {
    const int h = row + pixel / kBottleneckHalo + i * kRowsAPass;
    const bool valid = inside && static_cast<uint32_t>(h) < static_cast<uint32_t>(p.height);
    const int64_t at =
        ((static_cast<int64_t>(image) * p.height + h) * p.width + w) * p.channels + channel + chunk * 8;
    cp_async(
        shared_address(slice + Swizzle<kChunks>::at(pixel + i * kPixelsAPass, chunk)),
        static_cast<const uint16_t*>(p.x) + at, valid);
  }
}

// A ring of stages over all steps of all tiles of a block. The steps of a tile, in order:
//   1. 32 channels of x with w1's                              (channels / 32 steps)
//   2. 64 channels of w2 at a tap                              (9 * kSlices)
//   3. for kMiddle outputs at a time: 64 channels of w3        (kSlices), and with a downsample
//      32 channels of x with wd's                              (channels / 32)
// Resident weights are not fed; steps without x then do not exist.
template <typename Traits>
class BottleneckFeed {
 public:
  __device__ BottleneckFeed(const BottleneckInferParams& params, unsigned char* ring)
      : p_(params), ring_(ring), x_steps_(params.channels / kBottleneckXDepth), tile_(blockIdx.x) {
#pragma unroll
    for (int i = 0; i < Traits::kStages - 1; ++i) produce();
  }

  // The next step's stage, complete for the whole block; valid until the call after.
  __device__ const unsigned char* next() {
    cp_async_wait<Traits::kStages - 2>();
    __syncthreads();  // all have copied their share, and are done with the stage that is overwritten now
    produce();
    const unsigned char* const stage = ring_ + read_ * Traits::kStageBytes;
    read_ = read_ + 1 == Traits::kStages ? 0 : read_ + 1;
    return stage;
  }

 private:
  static constexpr int kTapSteps = Traits::kResident ? 0 : 9 * Traits::kSlices;
  static constexpr int kOutSteps = Traits::kResident ? 0 : Traits::kSlices;

  __device__ void produce() {
    if (tile_ < p_.tiles) {
      load(ring_ + write_ * Traits::kStageBytes);
      const int out_steps = kOutSteps + (Traits::kDownsample ? x_steps_ : 0);
      if (++step_ == x_steps_ + kTapSteps + p_.outputs / Traits::kMiddle * out_steps) {
        step_ = 0;
        tile_ += gridDim.x;
      }
    }
    cp_async_commit();
    write_ = write_ + 1 == Traits::kStages ? 0 : write_ + 1;
  }

  __device__ void load(unsigned char* stage) const {
    constexpr int kMiddle = Traits::kMiddle;
    const BottleneckPlace place(p_, tile_);
    if (step_ < x_steps_) {
      const int channel = step_ * kBottleneckXDepth;
      load_bottleneck_x(stage, p_, place.image, place.row - 1, place.column - 1, kBottleneckHalo, channel);
      if constexpr (!Traits::kResident) {
        load_bottleneck_weights<Traits, kBottleneckXDepth>(
            stage + Traits::kXBytes, p_.w1, channel, p_.channels);
      }
      return;
    }
    int step = step_ - x_steps_;
    if constexpr (!Traits::kResident) {
      if (step < kTapSteps) {
        return load_bottleneck_weights<Traits, kBottleneckDepth>(
            stage, p_.w2, step * kBottleneckDepth, 9 * kMiddle);
      }
      step -= kTapSteps;
    }
    if constexpr (!Traits::kResident || Traits::kDownsample) load_out_step(stage, step, place);
  }

  __device__ void load_out_step(unsigned char* stage, int step, const BottleneckPlace& place) const {
    constexpr int kMiddle = Traits::kMiddle;
    const int out_steps = kOutSteps + (Traits::kDownsample ? x_steps_ : 0);
    const int64_t first_row = static_cast<int64_t>(step / out_steps) * kMiddle;
    step %= out_steps;
    if constexpr (!Traits::kResident) {
      if (step < kOutSteps) {
        return load_bottleneck_weights<Traits, kBottleneckDepth>(
            stage, p_.w3, first_row * kMiddle + step * kBottleneckDepth, kMiddle);
      }
      step -= kOutSteps;
    }
    if constexpr (Traits::kDownsample) {
      const int channel = step * kBottleneckXDepth;
      load_bottleneck_x(stage, p_, place.image, place.row, place.column, kBottleneckTile, channel);
      if constexpr (!Traits::kResident) {
        load_bottleneck_weights<Traits, kBottleneckXDepth>(
            stage + Traits::kXBytes, p_.wd, first_row * p_.channels + channel, p_.channels);
      }
    }
  }

  const BottleneckInferParams& p_;
  unsigned char* ring_;
  int x_steps_, tile_, step_ = 0, read_ = 0, write_ = 0;
};

// All weights in shared memory, slice by slice in the order of their use; nothing where they are fed.
template <typename Traits>
struct BottleneckWeights {
  const unsigned char *w1 = nullptr, *w2 = nullptr, *w3 = nullptr, *wd = nullptr;

  __device__ BottleneckWeights(const BottleneckInferParams& p, unsigned char* at) {
    constexpr int kMiddle = Traits::kMiddle;
    if constexpr (!Traits::kResident) return;
    const int x_steps = p.channels / kBottleneckXDepth, groups = p.outputs / kMiddle;
    w1 = at;
    for (int i = 0; i < x_steps; ++i, at += Traits::kXSliceBytes) {
      load_bottleneck_weights<Traits, kBottleneckXDepth>(at, p.w1, i * kBottleneckXDepth, p.channels);
    }
    w2 = at;
    for (int i = 0; i < 9 * Traits::kSlices; ++i, at += Traits::kSliceBytes) {
      load_bottleneck_weights<Traits, kBottleneckDepth>(at, p.w2, i * kBottleneckDepth, 9 * kMiddle);
    }
    w3 = at;
    for (int i = 0; i < groups * Traits::kSlices; ++i, at += Traits::kSliceBytes) {
      const int64_t row = static_cast<int64_t>(i / Traits::kSlices) * kMiddle;
      load_bottleneck_weights<Traits, kBottleneckDepth>(
          at, p.w3, row * kMiddle + i % Traits::kSlices * kBottleneckDepth, kMiddle);
    }
    wd = at;
    if constexpr (Traits::kDownsample) {
      for (int i = 0; i < groups * x_steps; ++i, at += Traits::kXSliceBytes) {
        const int64_t row = static_cast<int64_t>(i / x_steps) * kMiddle;
        load_bottleneck_weights<Traits, kBottleneckXDepth>(
            at, p.wd, row * p.channels + i % x_steps * kBottleneckXDepth, p.channels);
      }
    }
    cp_async_commit();
  }
};

}  // namespace fusedres::cuda
