"""Running statistics: read, moved and written by one program, without a synchronisation."""

from __future__ import annotations

from collections.abc import Sequence

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
    running_mean: Sequence[Tensor],
    running_var: Sequence[Tensor],
    num_batches_tracked: Sequence[Tensor],
    mean: Sequence[Tensor],
    var: Sequence[Tensor],
    n: Sequence[int],
    momentum: float | None,
) -> None:
    counts: Sequence[Tensor | None] = num_batches_tracked or [None] * len(n)
    layers = [*zip(running_mean, running_var, counts, mean, var, n, strict=True)]
    for old_mean, old_var, batches, new_mean, new_var, values in layers:
        launch(
            bn_update_running_kernel, (1,),
            old_mean, old_var, old_mean.stride(0), old_var.stride(0), batches,
            new_mean.contiguous(), new_var.contiguous(), old_mean.shape[0], values, momentum, BC=BLOCK,
        )  # fmt: skip
