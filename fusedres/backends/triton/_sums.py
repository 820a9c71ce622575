"""Σdz and Σ(dz·x̂): partials a tile, reduced in a fixed order by a second, tiny kernel."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fusedres.backends.triton._device import cdiv, power_of_two
from fusedres.backends.triton._library import launch

#: Partials a program adds at once: 512 rows of 8 channels are 32-byte sectors, 16 values a thread of 8 warps.
BLOCK_TILES, BLOCK_CHANNELS, WARPS = 512, 8, 8


@triton.jit
def sum_partials_kernel(
    partials, sums, sums2, tiles, channels, SLOTS: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr
):
    """partials (tiles, SLOTS, channels): Σdz[, Σ(dz·x̂)[, Σ(dz·x̂₂)]] → sums (2, channels)[, sums2].

    In fp64: the sums cancel, and these are tiles × channels values only.
    """
    slot = tl.program_id(1)
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    inside = c < channels
    lane = tl.arange(0, BT)
    total = tl.zeros((BT, BC), tl.float64)
    for start in range(0, tiles, BT):
        t = start + lane
        at = (t[:, None].to(tl.int64) * SLOTS + slot) * channels + c[None, :]
        total += tl.load(partials + at, mask=(t < tiles)[:, None] & inside[None, :], other=0.0).to(tl.float64)
    value = tl.sum(total, 0).to(tl.float32)
    tl.store(sums + slot * channels + c, value, mask=inside & (slot < 2))
    if SLOTS == 1:
        tl.store(sums + channels + c, tl.zeros((BC,), tl.float32), mask=inside)
    if sums2 is not None:
        tl.store(sums2 + c, value, mask=inside & (slot == 0))
        tl.store(sums2 + channels + c, value, mask=inside & (slot == 2))


def sum_partials(partials: Tensor) -> tuple[Tensor, Tensor | None]:
    """(T, 1 | 2 | 3, C) partials → ``sums`` (2, C), and ``sums2`` (2, C) where there are three slots.

    With one slot (no x̂) the second row of ``sums`` is zero.
    """
    tiles, slots, channels = partials.shape
    sums = partials.new_empty(2, channels, dtype=torch.float32)
    sums2 = torch.empty_like(sums) if slots == 3 else None
    launch(
        sum_partials_kernel, (cdiv(channels, BLOCK_CHANNELS), slots),
        partials, sums, sums2, tiles, channels,
        SLOTS=slots, BT=min(BLOCK_TILES, power_of_two(max(tiles, 1))), BC=BLOCK_CHANNELS,
        num_warps=WARPS,
    )  # fmt: skip
    return sums, sums2
