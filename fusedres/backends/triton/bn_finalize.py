"""Chan's merge of the tiles' statistics in a fixed order, and the affine that follows from it."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from fusedres.backends.triton._device import cdiv, power_of_two
from fusedres.backends.triton._library import dense, implements, launch
from fusedres.backends.triton._sums import BLOCK_CHANNELS, BLOCK_TILES, WARPS
from fusedres.ops._shapes import channel_vectors


@triton.jit
def bn_finalize_kernel(
    count, mean, m2, gamma, beta, out_mean, out_var, out_invstd, out_scale, out_shift, tiles, channels, eps,
    BT: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Chan's formula for all tiles at once, in fp64: mean = Σnᵢmᵢ/n, M2 = ΣM2ᵢ + Σnᵢ(mᵢ − mean)².

    Means enter as deviations from the first tile's: a constant channel has variance 0 exactly.
    """
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    inside = c < channels
    lane = tl.arange(0, BT)
    pivot = tl.load(mean + c, mask=inside & (tiles > 0), other=0.0).to(tl.float64)
    counts = tl.zeros((BT,), tl.float64)
    weighted = tl.zeros((BT, BC), tl.float64)
    for start in range(0, tiles, BT):
        t = start + lane
        live = (t < tiles)[:, None] & inside[None, :]
        n = tl.load(count + t, mask=t < tiles, other=0.0).to(tl.float64)
        tile_mean = tl.load(mean + t[:, None].to(tl.int64) * channels + c[None, :], mask=live, other=0.0)
        counts += n
        weighted += n[:, None] * (tile_mean.to(tl.float64) - pivot[None, :])
    total = tl.maximum(tl.sum(counts, 0), 1.0)
    mu = pivot + tl.sum(weighted, 0) / total
    spread = tl.zeros((BT, BC), tl.float64)
    for start in range(0, tiles, BT):
        t = start + lane
        live = (t < tiles)[:, None] & inside[None, :]
        at = t[:, None].to(tl.int64) * channels + c[None, :]
        n = tl.load(count + t, mask=t < tiles, other=0.0).to(tl.float64)
        deviation = tl.load(mean + at, mask=live, other=0.0).to(tl.float64) - mu[None, :]
        spread += tl.load(m2 + at, mask=live, other=0.0).to(tl.float64) + n[:, None] * deviation * deviation
    var = tl.sum(spread, 0) / total
    invstd = 1.0 / tl.sqrt(var + eps)
    scale = invstd
    if gamma is not None:
        scale = scale * tl.load(gamma + c, mask=inside).to(tl.float64)
    shift = -mu * scale
    if beta is not None:
        shift += tl.load(beta + c, mask=inside).to(tl.float64)
    tl.store(out_mean + c, mu.to(tl.float32), mask=inside)
    tl.store(out_var + c, var.to(tl.float32), mask=inside)
    tl.store(out_invstd + c, invstd.to(tl.float32), mask=inside)
    tl.store(out_scale + c, scale.to(tl.float32), mask=inside)
    tl.store(out_shift + c, shift.to(tl.float32), mask=inside)


@implements("bn_finalize")
def bn_finalize(
    count: Tensor, mean: Tensor, m2: Tensor, gamma: Tensor | None, beta: Tensor | None, eps: float
) -> tuple[Tensor, ...]:
    tiles, channels = mean.shape
    outputs = channel_vectors(mean, channels, 5)
    launch(
        bn_finalize_kernel, (cdiv(channels, BLOCK_CHANNELS),),
        *dense(count, mean, m2, gamma, beta), *outputs, tiles, channels, eps,
        BT=min(BLOCK_TILES, power_of_two(max(tiles, 1))), BC=BLOCK_CHANNELS, num_warps=WARPS,
    )  # fmt: skip
    return outputs
