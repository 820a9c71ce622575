"""The implicit GEMM behind every convolution but the weight gradient: one kernel, gated by constants.

Rows are pixels of the result, columns its channels (of one group), and the reduction runs over taps and
the source's channels. A forward convolution and a data gradient differ in how a pixel finds its taps:

- forward: tap r of pixel p reads row p·stride − padding + r·dilation;
- gradient: row h receives tap r from row (h + padding − r·dilation) / stride, where that divides. Which
  taps divide depends on h mod stride alone, so rows are cut into stride² classes, and each class walks
  over its own taps only: no multiplication by zeros, any stride and dilation.

Both are a first tap, a count of taps, and constant steps.

At stride 1 a tile may also be a box of pixels (PN > 0): then a tap of it is a box of the source, and ``src``,
``other`` and ``w`` are tensor descriptors that the tensor memory accelerator (TMA) copies boxes by.

Absent operands are ``None``; Triton compiles what is there.
"""

from __future__ import annotations

import triton
import triton.language as tl

from fusedres.backends.triton._conv_partials import parts_of, store_statistics, store_sums
from fusedres.backends.triton._maths import affine, channel, factor, is_active, relu


@triton.jit
def _first_tap(phase, SIZE: tl.constexpr, STRIDE: tl.constexpr, DIL: tl.constexpr, STEP: tl.constexpr):
    """The smallest tap r with r·DIL ≡ phase (mod STRIDE); SIZE where there is none."""
    first = SIZE
    for r in tl.static_range(STEP - 1, -1, -1):
        # phase + r·DIL·(STRIDE − 1) ≡ phase − r·DIL, and stays positive: Triton's % truncates as C's does.
        first = tl.where((phase + r * DIL * (STRIDE - 1)) % STRIDE == 0, r if r < SIZE else SIZE, first)
    return first


@triton.jit
def conv_kernel(
    src, src_scale, src_shift, other, other_scale, w,
    out, scale, shift, add,
    count, mean, m2,
    prev, prev_scale, prev_shift, prev_mean, prev_invstd, sums,
    batch, src_h, src_w, src_c, out_h, out_w, out_c, parts,
    RED: tl.constexpr, COLS: tl.constexpr, R: tl.constexpr, S: tl.constexpr,
    STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr, PAD_H: tl.constexpr, PAD_W: tl.constexpr,
    DIL_H: tl.constexpr, DIL_W: tl.constexpr, STEP_H: tl.constexpr, STEP_W: tl.constexpr,
    DGRAD: tl.constexpr, FLAT: tl.constexpr, WORD: tl.constexpr, LEAD: tl.constexpr,
    SRC_RELU: tl.constexpr, RELU: tl.constexpr,
    WIDE: tl.constexpr, PRECISION: tl.constexpr, STAT_ROWS: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    PN: tl.constexpr = 0, PH: tl.constexpr = 0, PW: tl.constexpr = 0,
):  # fmt: skip
    """out = epilogue(conv(prologue(src), w)), for one tile of pixels and channels of one group and class.

    Prologue: src·src_scale + src_shift (+ other·other_scale), ReLU; padding stays zero.
    Epilogue: ·scale + shift, + add, ReLU; then per-tile statistics (``count``, ``mean``, ``m2``), or the
    mask and sums of the BatchNorm before (``prev``…, ``sums``).

    Memory: src (batch, src_h, src_w, src_c), out (batch, out_h, out_w, out_c), w (K, R, S, C / groups).
    RED and COLS are channels of one group. Few of them would leave most of a block of BK empty: WORD > 0
    reduces over a row of taps at a time (a run of S·RED values, see ``_runs.py``; forward alone), FLAT over
    taps × channels as one index. PN > 0: a tile is a box of PN images × PH rows × PW columns, and src, other
    and w are tensor descriptors.
    """
    RUNS: tl.constexpr = WORD > 0
    POINTWISE: tl.constexpr = R * S == 1 and PAD_H == 0 and PAD_W == 0
    BOXES: tl.constexpr = PN > 0
    column_tiles: tl.constexpr = (COLS + BN - 1) // BN
    tile = tl.program_id(0) // column_tiles
    column_tile = tl.program_id(0) % column_tiles
    group = tl.program_id(1)
    if WIDE:
        tile = tile.to(tl.int64)
    rows = tile * BM + tl.arange(0, BM)

    # Where each row's pixel lies in the result, and its first tap in the source.
    part_base = 0
    if POINTWISE and STRIDE_H == 1 and STRIDE_W == 1:
        live = rows < batch * out_h * out_w
        pixel = rows
        taps_h = 1
        taps_w = 1
        first_h = 0
        first_w = 0
        row0 = tl.zeros_like(rows)
        column0 = row0
        origin = rows
        box_n = 0
        box_h = 0
        box_w = tile.to(tl.int32) * BM
    elif BOXES:
        boxes_w = (out_w + PW - 1) // PW
        boxes_h = (out_h + PH - 1) // PH
        box_n = (tile // (boxes_w * boxes_h) * PN).to(tl.int32)
        box_h = (tile // boxes_w % boxes_h * PH).to(tl.int32)
        box_w = (tile % boxes_w * PW).to(tl.int32)
        lane_m = tl.arange(0, BM)
        image = box_n + lane_m // (PH * PW)
        p = box_h + lane_m // PW % PH
        q = box_w + lane_m % PW
        live = (image < batch) & (p < out_h) & (q < out_w)
        if WIDE:
            image = image.to(tl.int64)
        pixel = (image * out_h + p) * out_w + q
        taps_h = R
        taps_w = S
        first_h = 0
        first_w = 0
        # At stride 1 both directions only shift: forward by −padding, the gradient by +padding.
        SHIFT_H: tl.constexpr = PAD_H if DGRAD else -PAD_H
        SHIFT_W: tl.constexpr = PAD_W if DGRAD else -PAD_W
        row0 = p + SHIFT_H
        column0 = q + SHIFT_W
        box_h += SHIFT_H
        box_w += SHIFT_W
        origin = pixel
    else:
        if DGRAD:
            phase_h = tl.program_id(2) // STRIDE_W
            phase_w = tl.program_id(2) % STRIDE_W
            height = (out_h - phase_h + STRIDE_H - 1) // STRIDE_H
            width = (out_w - phase_w + STRIDE_W - 1) // STRIDE_W
            first_h = _first_tap(phase_h + PAD_H, R, STRIDE_H, DIL_H, STEP_H)
            first_w = _first_tap(phase_w + PAD_W, S, STRIDE_W, DIL_W, STEP_W)
            taps_h = (R - first_h + STEP_H - 1) // STEP_H
            taps_w = (S - first_w + STEP_W - 1) // STEP_W
            part_base = tl.program_id(2) * parts
        else:
            height = out_h
            width = out_w
            first_h = 0
            first_w = 0
            taps_h = R
            taps_w = S
        live = rows < batch * height * width
        image = rows // (width * height)
        p = rows // width % height
        q = rows % width
        if DGRAD:
            p = p * STRIDE_H + phase_h
            q = q * STRIDE_W + phase_w
            row0 = (p + PAD_H - first_h * DIL_H) // STRIDE_H
            column0 = (q + PAD_W - first_w * DIL_W) // STRIDE_W
        else:
            row0 = p * STRIDE_H - PAD_H
            column0 = q * STRIDE_W - PAD_W
        pixel = (image * out_h + p) * out_w + q
        origin = (image * src_h + row0) * src_w + column0
    WALK_H: tl.constexpr = -(STEP_H * DIL_H // STRIDE_H) if DGRAD else DIL_H
    WALK_W: tl.constexpr = -(STEP_W * DIL_W // STRIDE_W) if DGRAD else DIL_W

    # w (K, R, S, C): the reduction is its last axis going forward, its first in the gradient.
    W_RED: tl.constexpr = R * S * COLS if DGRAD else 1
    W_TAP: tl.constexpr = COLS if DGRAD else RED
    W_COL: tl.constexpr = 1 if DGRAD else R * S * RED
    n = column_tile * BN + tl.arange(0, BN)
    if not BOXES:
        w_base = w + group * (R * S * RED * COLS) + n[None, :] * W_COL
    n_inside = n < COLS
    RUN: tl.constexpr = LEAD + S * RED if RUNS else RED
    BLOCKS: tl.constexpr = (RUN + BK - 1) // BK
    width = src_w
    if RUNS:  # one tap, whose columns are values; places are counted from its first word
        taps_w = 1
        width = tl.multiple_of(src_w * RED, WORD)
        column0 = tl.multiple_of(column0 * RED - LEAD, WORD)
        origin = tl.multiple_of(origin * RED - LEAD, WORD)
    lane = tl.arange(0, BK)
    depth = taps_h * taps_w * RED
    if FLAT:
        steps = (depth + BK - 1) // BK
    else:
        steps = taps_h * taps_w * BLOCKS

    acc = tl.zeros((BM, BN), tl.float32)
    for step in range(0, steps):
        if FLAT:
            tap = (step * BK + lane) // RED
            red = (step * BK + lane) % RED
            inside = step * BK + lane < depth
        else:
            tap = step // BLOCKS
            red = step % BLOCKS * BK + lane
            inside = red < RUN
        i = tap // taps_w
        j = tap % taps_w
        ok = live[:, None]
        if not POINTWISE:
            if FLAT:
                h = row0[:, None] + (i * WALK_H)[None, :]
                v = column0[:, None] + (j * WALK_W)[None, :]
            elif RUNS:
                h = (row0 + i * WALK_H)[:, None]
                v = column0[:, None] + red[None, :]
            else:
                h = (row0 + i * WALK_H)[:, None]
                v = (column0 + j * WALK_W)[:, None]
            ok = ok & (h >= 0) & (h < src_h) & (v >= 0) & (v < width)
        if FLAT or RUN % BK != 0:
            ok = ok & inside[None, :]
        if BOXES:
            block = step % BLOCKS * BK
            at = [box_n, box_h + i * WALK_H, box_w + j * WALK_W, group * RED + block]
            a = src.load(at).reshape(BM, BK)
        elif RUNS:
            at = (origin + i * WALK_H * width)[:, None] + red[None, :]
            a = tl.load(src + at, mask=ok, other=0.0)
            red -= LEAD
            inside = inside & (red >= 0)
            if LEAD > 0:  # what the first word has before the run, which may be no number
                ok = ok & (red >= 0)[None, :]
                a = tl.where((red >= 0)[None, :], a, 0.0)
        else:
            at = (
                origin[:, None] * src_c
                + ((i * WALK_H * src_w + j * WALK_W) * src_c + group * RED + red)[None, :]
            )
            a = tl.load(src + at, mask=ok, other=0.0)
        if src_scale is not None:
            c = red % RED if RUNS else group * RED + red
            value = affine(a.to(tl.float32), src_scale, src_shift, c, inside)
            if other is not None:
                if BOXES:
                    extra = other.load(at).reshape(BM, BK)
                else:
                    extra = tl.load(other + at, mask=ok, other=0.0)
                value = tl.fma(extra.to(tl.float32), channel(other_scale, c, inside), value)
            if SRC_RELU:
                value = relu(value)
            a = tl.where(ok, value, 0.0).to(a.dtype)
        w_tap = (first_h + i * STEP_H) * S + first_w + j * STEP_W
        if BOXES:
            if DGRAD:
                b = w.load([group * RED + block, w_tap, column_tile * BN]).reshape(BK, BN)
            else:
                b = w.load([group * COLS + column_tile * BN, w_tap, block]).reshape(BN, BK).T
        else:
            w_at = (red * W_RED + w_tap * W_TAP)[:, None]
            if FLAT or RUN % BK != 0 or LEAD > 0:
                b = tl.load(w_base + w_at, mask=inside[:, None] & n_inside[None, :], other=0.0)
            elif COLS % BN != 0:
                b = tl.load(w_base + w_at, mask=n_inside[None, :], other=0.0)
            else:
                b = tl.load(w_base + w_at)
        acc = tl.dot(factor(a, PRECISION), factor(b, PRECISION), acc, input_precision=PRECISION)

    c = group * COLS + n
    at = pixel[:, None] * out_c + c[None, :]
    ok = live[:, None] & n_inside[None, :]
    value = affine(acc, scale, shift, c, n_inside)
    if add is not None:
        value += tl.load(add + at, mask=ok, other=0.0).to(tl.float32)
    if RELU:
        value = relu(value)
    if prev is not None:
        y = tl.load(prev + at, mask=ok, other=0.0)
        value = tl.where(ok & is_active(y, prev_scale, prev_shift, c, n_inside), value, 0.0)
    result = value.to(out.dtype.element_ty)
    tl.store(out + at, result, mask=ok)
    if count is not None or sums is not None:
        # Statistics and sums are of what was stored: the next kernel sees the rounded values.
        stored = result.to(tl.float32)
        first, last = parts_of(tile, tl.num_programs(0) // column_tiles, parts, BM, STAT_ROWS)
        if count is not None:
            if BOXES:
                stored = tl.where(live[:, None], stored, 0.0)  # rows outside the map may see some of it
            first_column = (column_tile == 0) & (group == 0)
            store_statistics(stored, live, count, mean, m2, first, last, c, n_inside, out_c, first_column)
        if sums is not None:
            SLOTS: tl.constexpr = 1 if prev_mean is None else 2
            store_sums(
                stored, y, prev_mean, prev_invstd, sums, first, last, part_base, c, n_inside, out_c, SLOTS
            )
