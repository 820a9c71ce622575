"""BatchNorm's parameter gradients and the coefficients of its input gradient: C values each."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from fusedres.backends.triton._device import cdiv
from fusedres.backends.triton._library import dense, implements, launch
from fusedres.backends.triton._sums import sum_partials
from fusedres.ops._shapes import channel_vectors

BLOCK = 256


@triton.jit(do_not_specialize=["values"])
def bn_bwd_finalize_kernel(
    sums, gamma, mean, invstd, dgamma, dbeta, p, q, r, channels, values,
    FROZEN: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """In fp64: C values, and q·mean cancels against Σdz."""
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    inside = c < channels
    total = tl.load(sums + c, mask=inside)
    projected = tl.load(sums + channels + c, mask=inside)
    scale = tl.load(invstd + c, mask=inside).to(tl.float64)
    inverse = scale
    if gamma is not None:
        scale = scale * tl.load(gamma + c, mask=inside).to(tl.float64)
    tl.store(dgamma + c, projected, mask=inside)
    tl.store(dbeta + c, total, mask=inside)
    tl.store(p + c, scale.to(tl.float32), mask=inside)
    zero = tl.zeros((BC,), tl.float32)
    if FROZEN:
        tl.store(q + c, zero, mask=inside)
        tl.store(r + c, zero, mask=inside)
    else:
        n = values.to(tl.float64)
        slope = -scale * inverse * projected.to(tl.float64) / n
        offset = -scale * total.to(tl.float64) / n - slope * tl.load(mean + c, mask=inside).to(tl.float64)
        tl.store(q + c, slope.to(tl.float32), mask=inside)
        tl.store(r + c, offset.to(tl.float32), mask=inside)


@implements("bn_bwd_finalize")
def bn_bwd_finalize(
    sums: Tensor, gamma: Tensor | None, mean: Tensor, invstd: Tensor, n: int, frozen: bool
) -> tuple[Tensor, ...]:
    channels = sums.shape[1]
    if sums.shape[0] != 2:  # another back-end's, in parts
        sums, _ = sum_partials(sums.view(-1, 2, channels))
    outputs = channel_vectors(sums, channels, 5)
    # An empty batch has sums of 0, and coefficients of 0 with them.
    launch(
        bn_bwd_finalize_kernel, (cdiv(channels, BLOCK),),
        *dense(sums, gamma, mean, invstd), *outputs, channels, max(n, 1), FROZEN=frozen, BC=BLOCK,
    )  # fmt: skip
    return outputs
