"""BatchNorm's input gradient where it must be written out, for one branch or both of a join."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from fusedres.backends.triton._device import needs_int64
from fusedres.backends.triton._library import dense, implements, launch
from fusedres.backends.triton._maths import affine, channel
from fusedres.backends.triton._shapes import map_tile
from fusedres.ops._shapes import absent, empty_nhwc


@triton.jit
def _store_gradient(dy, dz, y, p, q, r, at, live, c, inside):
    value = affine(dz, p, r, c, inside)
    value = tl.fma(tl.load(y + at, mask=live).to(tl.float32), channel(q, c, inside), value)
    tl.store(dy + at, value.to(dy.dtype.element_ty), mask=live)


@triton.jit
def bn_act_bwd_apply_kernel(
    dz, y, p, q, r, y2, p2, q2, r2, dy, dy2, pixels, channels,
    WIDE: tl.constexpr, BM: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    column_tiles = tl.cdiv(channels, BC)
    row_tile = tl.program_id(0) // column_tiles
    if WIDE:
        row_tile = row_tile.to(tl.int64)
    rows = row_tile * BM + tl.arange(0, BM)
    c = tl.program_id(0) % column_tiles * BC + tl.arange(0, BC)
    inside = c < channels
    at = rows[:, None] * channels + c[None, :]
    live = (rows < pixels)[:, None] & inside[None, :]
    gradient = tl.load(dz + at, mask=live).to(tl.float32)
    _store_gradient(dy, gradient, y, p, q, r, at, live, c, inside)
    if y2 is not None:
        _store_gradient(dy2, gradient, y2, p2, q2, r2, at, live, c, inside)


@implements("bn_act_bwd_apply")
def bn_act_bwd_apply(
    dz: Tensor,
    y: Tensor,
    p: Tensor,
    q: Tensor,
    r: Tensor,
    y2: Tensor | None,
    p2: Tensor | None,
    q2: Tensor | None,
    r2: Tensor | None,
) -> tuple[Tensor, Tensor]:
    dy = empty_nhwc(dz, dz.shape)
    dy2 = None if y2 is None else empty_nhwc(dz, dz.shape)
    tile = map_tile(dz)
    if tile.pixels:
        launch(
            bn_act_bwd_apply_kernel, (tile.row_tiles * tile.column_tiles,),
            dz, y, *dense(p, q, r), y2, *dense(p2, q2, r2), dy, dy2, tile.pixels, tile.channels,
            WIDE=needs_int64(dz), BM=tile.BM, BC=tile.BC,
        )  # fmt: skip
    return dy, absent(dz) if dy2 is None else dy2
