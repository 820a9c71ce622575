"""The stem's affine + ReLU + max-pool (3 × 3, stride 2, padding 1), and its backward."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fusedres.backends.triton._device import cdiv, needs_int64
from fusedres.backends.triton._library import dense, implements, launch
from fusedres.backends.triton._maths import affine, is_active, normalized, relu
from fusedres.backends.triton._shapes import map_tile
from fusedres.backends.triton._sums import sum_partials
from fusedres.ops._shapes import empty_nhwc
from fusedres.ops.affine_act_maxpool import pooled_shape

#: Values a backward program holds: it forms four windows' gradients at once.
BACKWARD_VALUES = 1024


@triton.jit
def affine_act_maxpool_kernel(
    y, s, t, out, index, pixels, channels, height, width, pooled_height, pooled_width,
    WIDE: tl.constexpr, BM: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    column_tiles = tl.cdiv(channels, BC)
    row_tile = tl.program_id(0) // column_tiles
    if WIDE:
        row_tile = row_tile.to(tl.int64)
    rows = row_tile * BM + tl.arange(0, BM)
    c = tl.program_id(0) % column_tiles * BC + tl.arange(0, BC)
    inside = c < channels
    live = (rows < pixels)[:, None] & inside[None, :]
    top = rows // pooled_width % pooled_height * 2 - 1
    left = rows % pooled_width * 2 - 1
    image = rows // (pooled_width * pooled_height)
    best = tl.full((BM, BC), float("-inf"), tl.float32)
    place = tl.zeros((BM, BC), tl.int32)
    for tap in range(0, 9):
        h = top + tap // 3
        w = left + tap % 3
        ok = live & ((h >= 0) & (h < height) & (w >= 0) & (w < width))[:, None]
        at = ((image * height + h) * width + w)[:, None] * channels + c[None, :]
        value = relu(affine(tl.load(y + at, mask=ok, other=0.0).to(tl.float32), s, t, c, inside))
        value = value.to(y.dtype.element_ty).to(tl.float32)
        # The first maximum in row-major order wins, and a NaN over any number: torch's rule.
        better = ok & ((value > best) | (value != value))
        best = tl.where(better, value, best)
        place = tl.where(better, tap, place)
    at = rows[:, None] * channels + c[None, :]
    tl.store(out + at, best.to(out.dtype.element_ty), mask=live)
    tl.store(index + at, place.to(tl.uint8), mask=live)


@implements("affine_act_maxpool")
def affine_act_maxpool(y: Tensor, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    out = empty_nhwc(y, pooled_shape(y))
    index = empty_nhwc(y, out.shape, torch.uint8)
    tile = map_tile(out)
    if tile.pixels:
        launch(
            affine_act_maxpool_kernel, (tile.row_tiles * tile.column_tiles,),
            y, *dense(s, t), out, index, tile.pixels, tile.channels, *y.shape[2:], *out.shape[2:],
            WIDE=needs_int64(y), BM=tile.BM, BC=tile.BC,
        )  # fmt: skip
    return out, index


@triton.jit
def affine_act_maxpool_bwd_kernel(
    dout, index, y, s, t, mean, invstd, dz, partials,
    pixels, channels, height, width, pooled_height, pooled_width, iterations,
    WIDE: tl.constexpr, BM: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Each pixel gathers from the up to four windows that hold it: no atomics, each gradient read once."""
    column_tiles = tl.cdiv(channels, BC)
    tile = tl.program_id(0) // column_tiles
    if WIDE:
        tile = tile.to(tl.int64)
    c = tl.program_id(0) % column_tiles * BC + tl.arange(0, BC)
    inside = c < channels
    total = tl.zeros((BM, BC), tl.float32)
    projected = tl.zeros((BM, BC), tl.float32)
    for i in range(0, iterations):
        rows = (tile * iterations + i) * BM + tl.arange(0, BM)
        live = (rows < pixels)[:, None] & inside[None, :]
        h = rows // width % height
        w = rows % width
        image = rows // (width * height)
        gradient = tl.zeros((BM, BC), tl.float32)
        for window in tl.static_range(0, 4):
            # Row h lies in window (h + 1) // 2 at place (h + 1) % 2; if at 0, also at 2 of the one before.
            back_h = window // 2
            back_w = window % 2
            p = (h + 1) // 2 - back_h
            q = (w + 1) // 2 - back_w
            r = (h + 1) % 2 + 2 * back_h
            u = (w + 1) % 2 + 2 * back_w
            ok = (p >= 0) & (p < pooled_height) & (q >= 0) & (q < pooled_width) & (r < 3) & (u < 3)
            at = ((image * pooled_height + p) * pooled_width + q)[:, None] * channels + c[None, :]
            ok = live & ok[:, None]
            taken = tl.load(index + at, mask=ok, other=255).to(tl.int32) == (3 * r + u)[:, None]
            gradient += tl.load(dout + at, mask=ok & taken, other=0.0).to(tl.float32)
        at = rows[:, None] * channels + c[None, :]
        value = tl.load(y + at, mask=live, other=0.0)
        gradient = tl.where(is_active(value, s, t, c, inside), gradient, 0.0).to(dz.dtype.element_ty)
        tl.store(dz + at, gradient, mask=live)
        # What is summed is what was stored: BatchNorm's backward sees the rounded gradient.
        gradient = gradient.to(tl.float32)
        total += gradient
        projected += gradient * normalized(value, mean, invstd, c, inside)
    base = partials + tile * 2 * channels + c
    tl.store(base, tl.sum(total, 0), mask=inside)
    tl.store(base + channels, tl.sum(projected, 0), mask=inside)


@implements("affine_act_maxpool_bwd")
def affine_act_maxpool_bwd(
    dout: Tensor, index: Tensor, y: Tensor, s: Tensor, t: Tensor, mean: Tensor, invstd: Tensor
) -> tuple[Tensor, Tensor]:
    dz = empty_nhwc(y, y.shape)
    tile = map_tile(y, BACKWARD_VALUES)
    iterations = tile.iterations(y)
    tiles = cdiv(tile.pixels, tile.BM * iterations)
    partials = y.new_empty(tiles, 2, tile.channels, dtype=torch.float32)
    if tiles:
        launch(
            affine_act_maxpool_bwd_kernel, (tiles * tile.column_tiles,),
            dout, index, y, *dense(s, t, mean, invstd), dz, partials,
            tile.pixels, tile.channels, *y.shape[2:], *dout.shape[2:], iterations,
            WIDE=needs_int64(y), BM=tile.BM, BC=tile.BC,
        )  # fmt: skip
    sums, _ = sum_partials(partials)
    return dz, sums
