"""The join of a residual block: one pass, each value read and written once."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from fusedres.backends.triton._device import needs_int64
from fusedres.backends.triton._library import dense, implements, launch
from fusedres.backends.triton._maths import affine, relu
from fusedres.backends.triton._shapes import map_tile
from fusedres.ops._shapes import empty_nhwc


@triton.jit
def affine_add_act_kernel(
    a, sa, ta, b, sb, tb, out, pixels, channels,
    RELU: tl.constexpr, WIDE: tl.constexpr, BM: tl.constexpr, BC: tl.constexpr,
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
    value = affine(tl.load(a + at, mask=live).to(tl.float32), sa, ta, c, inside)
    if b is not None:
        value += affine(tl.load(b + at, mask=live).to(tl.float32), sb, tb, c, inside)
    if RELU:
        value = relu(value)
    tl.store(out + at, value.to(out.dtype.element_ty), mask=live)


@implements("affine_add_act")
def affine_add_act(
    a: Tensor, sa: Tensor, ta: Tensor, b: Tensor | None, sb: Tensor | None, tb: Tensor | None, relu: bool
) -> Tensor:
    out = empty_nhwc(a, a.shape)
    tile = map_tile(a)
    if tile.pixels:
        launch(
            affine_add_act_kernel, (tile.row_tiles * tile.column_tiles,),
            a, *dense(sa, ta), b, *dense(sb, tb), out, tile.pixels, tile.channels,
            RELU=relu, WIDE=needs_int64(a), BM=tile.BM, BC=tile.BC,
        )  # fmt: skip
    return out
