"""Running statistics: read, moved and written by one program, without a synchronisation."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from fusedres.backends.triton._library import implements, launch

BLOCK = 1024


@triton.jit(do_not_specialize=["values"])
def bn_update_running_kernel(
    running_mean, running_var, mean_stride, var_stride, batches, mean, var, channels, values, momentum,
    BC: tl.constexpr,
):  # fmt: skip
    factor = momentum
    if batches is not None:
        seen = tl.load(batches) + 1
        if momentum is None:
            factor = 1.0 / seen.to(tl.float32)
        # Every thread has read the counter before one of them writes it.
        tl.debug_barrier()
        tl.store(batches, seen)
    if values > 0:
        n = values.to(tl.float32)
        # One value has no unbiased variance; its biased one, 0, keeps the running statistics finite.
        unbiased = tl.div_rn(n, tl.maximum(n - 1.0, 1.0))
        for start in range(0, channels, BC):
            c = start + tl.arange(0, BC)
            inside = c < channels
            old_mean = tl.load(running_mean + c * mean_stride, mask=inside).to(tl.float64)
            old_var = tl.load(running_var + c * var_stride, mask=inside).to(tl.float64)
            new_mean = tl.load(mean + c, mask=inside).to(tl.float64)
            new_var = tl.load(var + c, mask=inside).to(tl.float64) * unbiased
            new_mean = old_mean * (1 - factor) + new_mean * factor
            new_var = old_var * (1 - factor) + new_var * factor
            tl.store(running_mean + c * mean_stride, new_mean.to(running_mean.dtype.element_ty), mask=inside)
            tl.store(running_var + c * var_stride, new_var.to(running_var.dtype.element_ty), mask=inside)


@implements("bn_update_running")
def bn_update_running(
    running_mean: Tensor,
    running_var: Tensor,
    num_batches_tracked: Tensor | None,
    mean: Tensor,
    var: Tensor,
    n: int,
    momentum: float | None,
) -> None:
    launch(
        bn_update_running_kernel, (1,),
        running_mean, running_var, running_mean.stride(0), running_var.stride(0), num_batches_tracked,
        mean.contiguous(), var.contiguous(), running_mean.shape[0], n, momentum, BC=BLOCK,
    )  # fmt: skip
