"""Running statistics: read, moved and written by one program a layer, without a synchronisation."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fusedres.backends.triton._library import implements, launch
from fusedres.ops.bn_update_running import RunningLayer, running_layers

#: Layers a launch: a bottleneck has three, and a downsample.
LAYERS = 4

BLOCK = 1024


# Arguments one by one: the graphs of torch.compile take no tuples of tensors for a kernel's.
@triton.jit(do_not_specialize=["c0", "c1", "c2", "c3", "n0", "n1", "n2", "n3"])
def bn_update_running_kernel(
    momentum,
    running_mean0, running_var0, batches0, mean0, var0, c0, n0,
    running_mean1, running_var1, batches1, mean1, var1, c1, n1,
    running_mean2, running_var2, batches2, mean2, var2, c2, n2,
    running_mean3, running_var3, batches3, mean3, var3, c3, n3,
    BC: tl.constexpr,
):  # fmt: skip
    """The layer of this program; ``c`` are its channels, ``n`` its values a channel."""
    layer = tl.program_id(0)
    running_mean, running_var, mean, var = running_mean0, running_var0, mean0, var0
    batches, channels, n = batches0, c0, n0.to(tl.float32)
    if running_mean1 is not None and layer == 1:
        running_mean, running_var, mean, var = running_mean1, running_var1, mean1, var1
        batches, channels, n = batches1, c1, n1.to(tl.float32)
    if running_mean2 is not None and layer == 2:
        running_mean, running_var, mean, var = running_mean2, running_var2, mean2, var2
        batches, channels, n = batches2, c2, n2.to(tl.float32)
    if running_mean3 is not None and layer == 3:
        running_mean, running_var, mean, var = running_mean3, running_var3, mean3, var3
        batches, channels, n = batches3, c3, n3.to(tl.float32)
    factor = momentum
    if batches is not None:
        seen = tl.load(batches) + 1
        if momentum is None:
            factor = 1.0 / seen.to(tl.float32)
        # Every thread has read the counter before one of them writes it.
        tl.debug_barrier()
        tl.store(batches, seen)
    if n > 0:
        # One value has no unbiased variance; its biased one, 0, keeps the running statistics finite.
        unbiased = tl.div_rn(n, tl.maximum(n - 1.0, 1.0))
        for start in range(0, channels, BC):
            c = start + tl.arange(0, BC)
            inside = c < channels
            old_mean = tl.load(running_mean + c, mask=inside).to(tl.float64)
            old_var = tl.load(running_var + c, mask=inside).to(tl.float64)
            new_mean = tl.load(mean + c, mask=inside).to(tl.float64)
            new_var = tl.load(var + c, mask=inside).to(tl.float64) * unbiased
            new_mean = old_mean * (1 - factor) + new_mean * factor
            new_var = old_var * (1 - factor) + new_var * factor
            tl.store(running_mean + c, new_mean.to(running_mean.dtype.element_ty), mask=inside)
            tl.store(running_var + c, new_var.to(running_var.dtype.element_ty), mask=inside)


def move(layers: Sequence[RunningLayer], momentum: float | None) -> None:
    """At most LAYERS of them, of the same dtypes, in one launch."""
    written = [(layer.running_mean.contiguous(), layer.running_var.contiguous()) for layer in layers]
    given: list[tuple[Any, ...]] = [
        (*dense, x.num_batches_tracked, x.mean.contiguous(), x.var.contiguous(), x.mean.shape[0], x.n)
        for x, dense in zip(layers, written, strict=True)
    ]
    given += [(None,) * 7] * (LAYERS - len(layers))
    launch(bn_update_running_kernel, (len(layers),), momentum, *itertools.chain(*given), BC=BLOCK)
    for layer, dense in zip(layers, written, strict=True):
        for running, moved in zip((layer.running_mean, layer.running_var), dense, strict=True):
            if not running.is_contiguous():
                running.copy_(moved)


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
    together: dict[tuple[torch.dtype, ...], list[RunningLayer]] = {}
    for layer in running_layers(running_mean, running_var, num_batches_tracked, mean, var, n):
        vectors = (layer.running_mean, layer.running_var, layer.mean, layer.var)
        together.setdefault(tuple(vector.dtype for vector in vectors), []).append(layer)
    for layers in together.values():
        for first in range(0, len(layers), LAYERS):
            move(layers[first : first + LAYERS], momentum)
