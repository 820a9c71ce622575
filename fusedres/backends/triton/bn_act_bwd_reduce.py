"""ReLU's mask and BatchNorm's backward sums: one pass over the map, then a tiny reduction."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fusedres.backends.triton._device import cdiv, needs_int64
from fusedres.backends.triton._library import dense, implements, launch
from fusedres.backends.triton._maths import channel, is_active
from fusedres.backends.triton._shapes import map_tile
from fusedres.backends.triton._sums import sum_partials
from fusedres.ops._shapes import absent, empty_nhwc


@triton.jit
def scaled(total, invstd, at, inside):
    """Σ(dz·x̂) of Σ(dz·(y − mean)): invstd once a channel is a rounding a value less."""
    return total * tl.load(invstd + at, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def bn_act_bwd_reduce_kernel(
    dout, out, y, s, t, mean, invstd, y2, mean2, invstd2, dz, partials, pixels, channels, iterations,
    SLOTS: tl.constexpr, WIDE: tl.constexpr, BM: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    column_tiles = tl.cdiv(channels, BC)
    tile = tl.program_id(0) // column_tiles
    if WIDE:
        tile = tile.to(tl.int64)
    c = tl.program_id(0) % column_tiles * BC + tl.arange(0, BC)
    inside = c < channels
    total = tl.zeros((BM, BC), tl.float32)
    projected = tl.zeros((BM, BC), tl.float32)
    projected2 = tl.zeros((BM, BC), tl.float32)
    for i in range(0, iterations):
        rows = (tile * iterations + i) * BM + tl.arange(0, BM)
        live = (rows < pixels)[:, None] & inside[None, :]
        at = rows[:, None] * channels + c[None, :]
        gradient = tl.load(dout + at, mask=live, other=0.0).to(tl.float32)
        if y is not None:
            value = tl.load(y + at, mask=live, other=0.0)
        if out is not None:
            activation = tl.load(out + at, mask=live, other=0.0).to(tl.float32)
            gradient = tl.where(activation > 0, gradient, 0.0)
        elif s is not None:
            gradient = tl.where(is_active(value, s, t, c, inside), gradient, 0.0)
        if dz is not None:
            tl.store(dz + at, gradient.to(dz.dtype.element_ty), mask=live)
        total += gradient
        if y is not None:
            projected += gradient * (value.to(tl.float32) - channel(mean, c, inside))
        if y2 is not None:
            value2 = tl.load(y2 + at, mask=live, other=0.0)
            projected2 += gradient * (value2.to(tl.float32) - channel(mean2, c, inside))
    base = partials + tile * SLOTS * channels + c
    tl.store(base, tl.sum(total, 0), mask=inside)
    if SLOTS > 1:
        tl.store(base + channels, scaled(tl.sum(projected, 0), invstd, c, inside), mask=inside)
    if SLOTS > 2:
        tl.store(base + 2 * channels, scaled(tl.sum(projected2, 0), invstd2, c, inside), mask=inside)


@implements("bn_act_bwd_reduce")
def bn_act_bwd_reduce(
    dout: Tensor,
    out: Tensor | None,
    y: Tensor | None,
    s: Tensor | None,
    t: Tensor | None,
    mean: Tensor | None,
    invstd: Tensor | None,
    y2: Tensor | None,
    mean2: Tensor | None,
    invstd2: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    masked = out is not None or s is not None
    dz = empty_nhwc(dout, dout.shape) if masked else None
    tile = map_tile(dout)
    iterations = tile.iterations(dout)
    tiles = cdiv(tile.pixels, tile.BM * iterations)
    slots = 3 if y2 is not None else 2 if y is not None else 1
    partials = dout.new_empty(tiles, slots, tile.channels, dtype=torch.float32)
    if tiles:
        launch(
            bn_act_bwd_reduce_kernel, (tiles * tile.column_tiles,),
            dout, out, y, *dense(s, t, mean, invstd), y2, *dense(mean2, invstd2), dz, partials,
            tile.pixels, tile.channels, iterations,
            SLOTS=slots, WIDE=needs_int64(dout), BM=tile.BM, BC=tile.BC,
        )  # fmt: skip
    sums, sums2 = sum_partials(partials)
    return absent(dout) if dz is None else dz, sums, absent(sums) if sums2 is None else sums2
