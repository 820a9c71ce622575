// out = relu(a * sa + ta [+ b | + b * sb + tb]): reads a and b once, writes out once.
#pragma once

#include "cpu/kernels/params.h"
#include "cpu/kernels/vec.h"

namespace fusedres::FUSEDRES_ISA {

enum class Add { kNone, kIdentity, kAffine };

template <typename T, Add kAdd, bool kRelu>
void affine_add_act_rows(const AffineAddAct<T> k, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const int64_t at = row * k.channels;
    for_channels(k.channels, [&](int64_t c, int n) __attribute__((always_inline)) {
      Vec x = affine(load(k.a + at + c, n), load(k.sa + c, n), load(k.ta + c, n));
      if constexpr (kAdd == Add::kIdentity) x += load(k.b + at + c, n);
      if constexpr (kAdd == Add::kAffine)
        x += affine(load(k.b + at + c, n), load(k.sb + c, n), load(k.tb + c, n));
      if constexpr (kRelu) x = relu(x);
      store(k.out + at + c, x, n, k.past_caches);
    });
  }
}

template <typename T>
void affine_add_act_kernel(const AffineAddAct<T>& k, int64_t begin, int64_t end) {
  const auto run = [&](auto add) {
    constexpr Add kAdd = decltype(add)::value;
    k.relu ? affine_add_act_rows<T, kAdd, true>(k, begin, end)
           : affine_add_act_rows<T, kAdd, false>(k, begin, end);
  };
  if (k.b == nullptr) {
    run(std::integral_constant<Add, Add::kNone>{});
  } else if (k.sb == nullptr) {
    run(std::integral_constant<Add, Add::kIdentity>{});
  } else {
    run(std::integral_constant<Add, Add::kAffine>{});
  }
  finish_streaming();
}

}  // namespace fusedres::FUSEDRES_ISA
