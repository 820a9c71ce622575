"""What a convolution's epilogue leaves beside the result: statistics or sums, one part a tile."""

from __future__ import annotations

import triton
import triton.language as tl

from fusedres.backends.triton._maths import normalized


@triton.jit
def parts_of(tile, tiles, parts, BM: tl.constexpr, STAT_ROWS: tl.constexpr):
    """The partials that are a tile's: it writes the first and empties the others.

    There is one a tile but where tiles of several sizes are tried: then they were made for the size that
    takes most, and the last tile has all that follow too, so that nothing is left of another size.
    """
    first = tile * (BM // STAT_ROWS)
    return first, tl.where(tile == tiles - 1, parts, first + BM // STAT_ROWS)


@triton.jit
def store_statistics(
    value, live, count, mean, m2, first, last, c, inside, channels, first_column,
):  # fmt: skip
    """Count, mean and M2 of a tile's columns; the mean is subtracted in registers before squaring."""
    n = tl.sum(live.to(tl.float32), 0)
    mu = tl.div_rn(tl.sum(value, 0), tl.zeros_like(tl.sum(value, 0)) + n)
    deviation = tl.where(live[:, None], value - mu[None, :], 0.0)
    tl.store(count + first, n, mask=first_column)
    tl.store(mean + first * channels + c, mu, mask=inside)
    tl.store(m2 + first * channels + c, tl.sum(deviation * deviation, 0), mask=inside)
    for empty in range(first + 1, last):
        tl.store(count + empty, 0.0, mask=first_column)
        tl.store(mean + empty * channels + c, tl.zeros_like(mu), mask=inside)
        tl.store(m2 + empty * channels + c, tl.zeros_like(mu), mask=inside)


@triton.jit
def store_sums(
    gradient, y, mean, invstd, sums, first, last, part_base, c, inside, channels, SLOTS: tl.constexpr,
):  # fmt: skip
    """A tile's Σdz and Σ(dz·x̂)."""
    base = sums + (part_base + first) * SLOTS * channels + c
    total = tl.sum(gradient, 0)
    tl.store(base, total, mask=inside)
    if SLOTS == 2:
        projected = tl.sum(gradient * normalized(y, mean, invstd, c, inside), 0)
        tl.store(base + channels, projected, mask=inside)
    for empty in range(first + 1, last):
        for slot in tl.static_range(0, SLOTS):
            at = sums + ((part_base + empty) * SLOTS + slot) * channels + c
            tl.store(at, tl.zeros_like(total), mask=inside)
