// Values in another type, rounded where that is the narrower one.
#pragma once

#include "cpu/kernels/params.h"
#include "cpu/kernels/vec.h"

namespace fusedres::FUSEDRES_ISA {

template <typename From, typename To>
void convert_kernel(const Convert<From, To>& k, int64_t begin, int64_t end) {
  int64_t i = begin;
  for (; i + kLanes <= end; i += kLanes) store(k.to + i, load(k.from + i, kLanes), kLanes, k.past_caches);
  if (i < end) store(k.to + i, load(k.from + i, static_cast<int>(end - i)), static_cast<int>(end - i));
  finish_streaming();
}

}  // namespace fusedres::FUSEDRES_ISA
