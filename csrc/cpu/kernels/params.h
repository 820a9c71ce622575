// What each kernel is told, and the table of kernels that every ISA fills.
//
// Activations are rows: `rows` = N * H * W of them, `channels` values each, dense. Vectors are fp32,
// `channels` long. Pointers to what is absent are null. A kernel works on [begin, end), of rows or of what
// its comment says; the caller splits the work over threads.
#pragma once

#include <cstdint>

#include "common/element.h"

namespace fusedres {

template <typename T>
struct AffineAddAct {
  const T *a, *b;
  const float *sa, *ta, *sb, *tb;
  T* out;
  int64_t channels;
  bool relu, past_caches;
};

// Works on values.
template <typename From, typename To>
struct Convert {
  const From* from;
  To* to;
  bool past_caches;
};

// One chunk of rows -> count, mean and m2 of its row in the (chunks, channels) outputs.
template <typename T>
struct BnStats {
  const T* y;
  float *count, *mean, *m2;
  int64_t rows, channels, chunk_rows;
};

struct BnFinalize {
  const float *count, *mean, *m2, *gamma, *beta;
  float *out_mean, *var, *invstd, *scale, *shift;
  int64_t tiles, channels;
  double eps;
};

// One chunk of rows -> its row in `partial`, (chunks, 3, channels) fp64: sum dz, sum dz * (y - mean), and the
// latter for y2. dz is written where there is a mask: by `out`, or by y * s + t.
template <typename T>
struct BnActBwdReduce {
  const T *dout, *out, *y, *y2;
  const float *s, *t, *mean, *mean2;
  T* dz;
  double* partial;
  int64_t rows, channels, chunk_rows;
  bool past_caches;
};

template <typename T>
struct BnActBwdApply {
  const T *dz, *y, *y2;
  const float *p, *q, *r, *p2, *q2, *r2;
  T *dy, *dy2;
  int64_t channels;
  bool past_caches;
};

// Of a map pooled by 3 x 3 windows, stride 2, padding 1.
inline int64_t pooled(int64_t size) { return (size + 1) / 2; }

// The forward works on pooled rows (image, pooled row).
template <typename T>
struct AffineActMaxpool {
  const T* y;
  const float *s, *t;
  T* out;
  uint8_t* index;
  int64_t height, width, pooled_height, pooled_width, channels;
};

// Works on pooled rows (image, p).
template <typename T>
struct Maxpool {
  const T* x;
  T* out;
  int64_t height, width, pooled_height, pooled_width, channels;
};

// One chunk of input rows (image, row) -> dz of those rows, and its row in `partial`, (chunks, 3, channels).
template <typename T>
struct AffineActMaxpoolBwd {
  const T *dout, *y;
  const uint8_t* index;
  const float *s, *t, *mean;
  T* dz;
  double* partial;
  int64_t image_rows, height, width, pooled_height, pooled_width, channels, chunk_rows;
  bool past_caches;
};

// Works on slices of an image's channels: (image, slice). means: (images, channels).
constexpr int64_t kMeansSlice = 256;
template <typename T>
struct ChannelMeans {
  const T* x;
  float* means;
  int64_t pixels, channels;
};

// out = x w^T + bias: x (images, in), w (rows, in). Works on groups of rows of w, each read as a stream.
constexpr int kLinearRows = 4;
template <typename T>
struct Linear {
  const float* x;
  const T* w;
  const float* bias;
  T* out;
  int64_t images, in, rows;
};

template <typename T>
struct ElementKernels {
  void (*affine_add_act)(const AffineAddAct<T>&, int64_t begin, int64_t end);
  void (*bn_stats)(const BnStats<T>&, int64_t begin_chunk, int64_t end_chunk);
  void (*bn_act_bwd_reduce)(const BnActBwdReduce<T>&, int64_t begin_chunk, int64_t end_chunk);
  void (*bn_act_bwd_apply)(const BnActBwdApply<T>&, int64_t begin, int64_t end);
  void (*affine_act_maxpool)(const AffineActMaxpool<T>&, int64_t begin, int64_t end);
  void (*affine_act_maxpool_bwd)(const AffineActMaxpoolBwd<T>&, int64_t begin_chunk, int64_t end_chunk);
  void (*maxpool)(const Maxpool<T>&, int64_t begin, int64_t end);
  void (*channel_means)(const ChannelMeans<T>&, int64_t begin, int64_t end);
  void (*linear)(const Linear<T>&, int64_t begin, int64_t end);
};

struct KernelTable {
  ElementKernels<float> fp32;
  ElementKernels<BFloat16> bf16;
  void (*bn_finalize)(const BnFinalize&);
  void (*widen)(const Convert<BFloat16, float>&, int64_t begin, int64_t end);
  void (*narrow)(const Convert<float, BFloat16>&, int64_t begin, int64_t end);

  template <typename T>
  const ElementKernels<T>& of() const;
};

template <>
inline const ElementKernels<float>& KernelTable::of<float>() const {
  return fp32;
}
template <>
inline const ElementKernels<BFloat16>& KernelTable::of<BFloat16>() const {
  return bf16;
}

// The table of the active ISA.
const KernelTable& kernels();

}  // namespace fusedres
