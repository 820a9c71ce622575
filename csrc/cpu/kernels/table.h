// Every kernel, compiled for the ISA of the file that includes this, in the namespace it names.
#pragma once

#include "cpu/kernels/affine_act_maxpool.h"
#include "cpu/kernels/affine_add_act.h"
#include "cpu/kernels/avgpool_linear.h"
#include "cpu/kernels/bn_act_bwd_apply.h"
#include "cpu/kernels/bn_act_bwd_reduce.h"
#include "cpu/kernels/bn_finalize.h"
#include "cpu/kernels/bn_stats.h"
#include "cpu/kernels/convert.h"
#include "cpu/kernels/maxpool.h"

namespace fusedres::FUSEDRES_ISA {

template <typename T>
constexpr ElementKernels<T> element_kernels() {
  return {affine_add_act_kernel<T>,   bn_stats_kernel<T>,           bn_act_bwd_reduce_kernel<T>,
          bn_act_bwd_apply_kernel<T>, affine_act_maxpool_kernel<T>, affine_act_maxpool_bwd_kernel<T>,
          maxpool_kernel<T>,          channel_means_kernel<T>,      linear_kernel<T>};
}

extern const KernelTable kTable;
const KernelTable kTable = {
    element_kernels<float>(), element_kernels<BFloat16>(), bn_finalize_kernel,
    convert_kernel<BFloat16, float>, convert_kernel<float, BFloat16>};

}  // namespace fusedres::FUSEDRES_ISA
