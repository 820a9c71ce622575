"""The host side of ``conv_kernel``: operands, constants, grid and partials of one launch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._library.triton import is_wrap_triton_enabled

from fusedres.backends.triton._boxes import Box, map_descriptor, shape_blocks, snug_box, weight_descriptor
from fusedres.backends.triton._conv_kernel import conv_kernel
from fusedres.backends.triton._device import cdiv, device_facts, dot_precision, needs_int64, power_of_two
from fusedres.backends.triton._library import dense, launch
from fusedres.backends.triton._runs import FEW_CHANNELS, run_of
from fusedres.backends.triton._sums import sum_partials
from fusedres.backends.triton._tiles import CONV_TILES, DEPTH_BYTES, Problem, keep_best, plan
from fusedres.ops._shapes import Geometry

#: What an autotuned choice depends on.
TUNING_KEY = (
    "batch", "out_h", "out_w", "src_c", "out_c", "RED", "COLS", "R", "S", "STRIDE_H", "DIL_H",
    "DGRAD", "SRC_RELU",
)  # fmt: skip


class Prologue(NamedTuple):
    """What happens to the source as it is loaded: ·scale + shift (+ other·other_scale), ReLU."""

    scale: Tensor | None = None
    shift: Tensor | None = None
    other: Tensor | None = None
    other_scale: Tensor | None = None
    relu: bool = False


class Previous(NamedTuple):
    """The BatchNorm before: what masks a gradient, and normalises for its sums."""

    y: Tensor
    scale: Tensor | None
    shift: Tensor | None
    mean: Tensor | None
    invstd: Tensor | None


class Epilogue(NamedTuple):
    """What happens to the result before it is stored: ·scale + shift, + add, ReLU, mask."""

    scale: Tensor | None = None
    shift: Tensor | None = None
    add: Tensor | None = None
    relu: bool = False
    statistics: bool = False
    previous: Previous | None = None


class Partials(NamedTuple):
    """What an epilogue leaves beside the result: statistics of the tiles, or finished sums."""

    counts: Tensor | None
    means: Tensor | None
    m2s: Tensor | None
    sums: Tensor | None


#: Pixels that 32-bit coordinates of a box reach.
MOST_BOXED = 2**31 - 2**20


def _boxes(
    operands: Sequence[Tensor | None],
    area: tuple[int, int, int],
    red: int,
    precision: str,
    g: Geometry,
    *,
    pointwise: bool,
    formed: bool,
) -> dict[int, Box]:
    """By BM, the boxes that cover ``area`` well; none where TMA cannot copy the operands.

    It copies at stride 1, rows of channels at multiples of 16 bytes, and has no mask: a group's last block
    would see the next group. In ``torch.compile``'s graphs a kernel's arguments can be no descriptors. A 1×1
    whose operand is formed on load, or whose reduction is one block, compiles no better (docs/triton.md).
    """
    src = next(x for x in operands if x is not None)
    size = src.dtype.itemsize
    block = min(DEPTH_BYTES // size, power_of_two(red))
    possible = (
        device_facts(src.device).copies_boxes
        and not is_wrap_triton_enabled()
        and g.stride == (1, 1)
        and not (pointwise and (formed or red <= block))
        and (size == 2 or precision == "tf32")
        and (g.groups == 1 or red % block == 0)
        and 0 < math.prod(area) < MOST_BOXED
        and all(x.shape[1] * size % 16 == 0 and x.data_ptr() % 16 == 0 for x in operands if x is not None)
    )
    found = {tile.BM: snug_box(tile.BM, area) for tile in CONV_TILES} if possible else {}
    return {rows: box for rows, box in found.items() if box is not None}


def run_conv(
    src: Tensor, w: Tensor, out: Tensor, g: Geometry, prologue: Prologue, epilogue: Epilogue, *, dgrad: bool
) -> Partials:
    """Launch ``conv_kernel``: ``out`` (N, ·, ·, ·) from ``src``, forward or (``dgrad``) backward.

    ``w`` (K, C / groups, R, S) is read channels_last, and copied where it is not.
    """
    k, c, r, s = w.shape
    w = w.contiguous(memory_format=torch.channels_last)
    red, cols = (k // g.groups, c) if dgrad else (c, k // g.groups)
    classes = g.stride[0] * g.stride[1] if dgrad else 1
    n, channels, out_h, out_w = out.shape
    if dgrad:
        out_pixels = n * cdiv(out_h, g.stride[0]) * cdiv(out_w, g.stride[1])
    else:
        out_pixels = n * out_h * out_w
    precision = dot_precision(src.dtype)
    run = None if dgrad else run_of(src, s, g)
    flat = run is None and red < FEW_CHANNELS and r * s > 1
    pointwise = r * s == 1 and g.padding == (0, 0)
    area = (1, 1, out_pixels) if pointwise else (n, out_h, out_w)
    sources = 2 if prologue.other is not None else 1
    formed = prologue.scale is not None
    depth = red * r * s if flat else run.size if run else red
    kernel = "conv_kernel, flat" if flat else "conv_kernel, runs" if run else "conv_kernel"
    operands = (src, prologue.other, w)
    boxes = (
        {} if flat or run else _boxes(operands, area, red, precision, g, pointwise=pointwise, formed=formed)
    )
    chosen = plan(
        conv_kernel,
        Problem(
            kernel, out_pixels, cols, depth, g.groups * classes,
            src.dtype, precision, (sources, 1), formed, device_facts(src.device),
            (r, s, *g.stride, *g.dilation, int(dgrad), int(prologue.relu)),
        ),
        CONV_TILES,
        TUNING_KEY,
        boxes,
        shape_blocks,
    )  # fmt: skip

    def row_tiles(meta: dict[str, int]) -> int:
        return (
            Box(meta["PN"], meta["PH"], meta["PW"]).tiles(area)
            if meta["PN"]
            else cdiv(out_pixels, meta["BM"])
        )

    # Each tile has a part, a larger one as many as the smallest would have; all that may run find room.
    parts = max(row_tiles(meta) * (meta["BM"] // chosen.least_rows) for meta in chosen.candidates)
    previous = epilogue.previous
    count = mean = m2 = sums = None
    if epilogue.statistics:
        count = out.new_empty(parts, dtype=torch.float32)
        mean, m2 = (out.new_empty(parts, channels, dtype=torch.float32) for _ in range(2))
    if previous is not None:
        slots = 1 if previous.mean is None else 2
        sums = out.new_empty(classes * parts, slots, channels, dtype=torch.float32)

    def grid(meta: dict[str, int]) -> tuple[int, int, int]:
        return row_tiles(meta) * cdiv(cols, meta["BN"]), g.groups, classes

    if parts:
        read: dict[str, Any] = {"src": src, "other": prologue.other, "w": w}
        if chosen.candidates[0]["PN"]:
            read = {
                "src": map_descriptor(src, pointwise),
                "other": None if prologue.other is None else map_descriptor(prologue.other, pointwise),
                "w": weight_descriptor(w),
            }
            if chosen.meta:
                shape_blocks({**read, **chosen.meta, "DGRAD": dgrad})
        launch(
            chosen.kernel, grid,
            read["src"], *dense(prologue.scale, prologue.shift), read["other"], *dense(prologue.other_scale),
            read["w"],
            out, *dense(epilogue.scale, epilogue.shift), epilogue.add,
            count, mean, m2,
            *((previous.y, *dense(*previous[1:])) if previous is not None else (None,) * 5), sums,
            n, *src.shape[2:], src.shape[1], out_h, out_w, channels, parts,
            RED=red, COLS=cols, R=r, S=s,
            STRIDE_H=g.stride[0], STRIDE_W=g.stride[1], PAD_H=g.padding[0], PAD_W=g.padding[1],
            DIL_H=g.dilation[0], DIL_W=g.dilation[1],
            STEP_H=g.stride[0] // math.gcd(g.stride[0], g.dilation[0]) if dgrad else 1,
            STEP_W=g.stride[1] // math.gcd(g.stride[1], g.dilation[1]) if dgrad else 1,
            DGRAD=dgrad, FLAT=flat, WORD=run.word if run else 0, LEAD=run.lead if run else 0,
            SRC_RELU=prologue.relu, RELU=epilogue.relu,
            WIDE=needs_int64(src, out), PRECISION=precision, STAT_ROWS=chosen.least_rows, **chosen.meta,
        )  # fmt: skip
        keep_best(chosen)
    return Partials(count, mean, m2, None if sums is None else sum_partials(sums)[0])
