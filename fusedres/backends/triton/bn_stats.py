"""Per-tile statistics of a tensor that exists: Welford's update in registers, one pass."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fusedres.backends.triton._device import cdiv, needs_int64
from fusedres.backends.triton._library import implements, launch
from fusedres.backends.triton._shapes import map_tile


@triton.jit
def bn_stats_kernel(
    y, count, mean, m2, pixels, channels, iterations,
    WIDE: tl.constexpr, BM: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    column_tiles = tl.cdiv(channels, BC)
    tile = tl.program_id(0) // column_tiles
    first = tile * iterations * BM
    if WIDE:
        first = tile.to(tl.int64) * iterations * BM
    lane = tl.arange(0, BM)
    column = tl.program_id(0) % column_tiles
    c = column * BC + tl.arange(0, BC)
    inside = c < channels
    # Each lane of the tile keeps the mean and M2 of the values it has seen; lanes are merged at the end.
    mu = tl.zeros((BM, BC), tl.float32)
    s = tl.zeros((BM, BC), tl.float32)
    n = tl.full((), 0.0, tl.float32)
    for i in range(0, iterations):
        rows = first + i * BM + lane
        live = (rows < pixels)[:, None] & inside[None, :]
        value = tl.load(y + rows[:, None] * channels + c[None, :], mask=live).to(tl.float32)
        n += 1.0
        delta = tl.where(live, value - mu, 0.0)
        mu += delta * tl.div_rn(tl.full((), 1.0, tl.float32), n)
        s += tl.where(live, delta * (value - mu), 0.0)
    seen = tl.minimum(tl.maximum((pixels - first - lane + BM - 1) // BM, 0), iterations).to(tl.float32)
    total = tl.sum(seen, 0)
    merged = tl.div_rn(tl.sum(mu * seen[:, None], 0), total)
    # Rounding may put it outside of its parts. Kept between them, a constant has its value, and M2 exactly 0.
    least = tl.min(tl.where(seen[:, None] > 0, mu, float("inf")), 0)
    most = tl.max(tl.where(seen[:, None] > 0, mu, float("-inf")), 0)
    between = tl.minimum(tl.maximum(merged, least), most)
    merged = tl.where(merged == merged, between, merged)  # NaN stays NaN
    deviation = mu - merged[None, :]
    tl.store(count + tile, total, mask=column == 0)
    tl.store(mean + tile * channels + c, merged, mask=inside)
    tl.store(m2 + tile * channels + c, tl.sum(s + deviation * deviation * seen[:, None], 0), mask=inside)


@implements("bn_stats")
def bn_stats(y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    tile = map_tile(y)
    iterations = tile.iterations(y)
    tiles = cdiv(tile.pixels, tile.BM * iterations)
    count = y.new_empty(tiles, dtype=torch.float32)
    mean, m2 = (y.new_empty(tiles, tile.channels, dtype=torch.float32) for _ in range(2))
    if tiles:
        launch(
            bn_stats_kernel, (tiles * tile.column_tiles,),
            y, count, mean, m2, tile.pixels, tile.channels, iterations,
            WIDE=needs_int64(y), BM=tile.BM, BC=tile.BC,
        )  # fmt: skip
    return count, mean, m2
