"""The weight gradient as a GEMM over pixels: filters × (taps × channels), split over the pixels."""

from __future__ import annotations

import triton
import triton.language as tl

from fusedres.backends.triton._maths import affine_inside, channel, factor, relu


@triton.jit
def _advanced(image, row, column, step_n, step_h, step_w, out_h, out_w):
    """The pixels ``(step_n, step_h, step_w)`` further on, each but the first less than its size.

    Dividing the pixels' numbers anew took 150 of 585 instructions of a step (3×3, 64 × 128, bf16, 8.0).
    """
    column += step_w
    over = column >= out_w
    column = tl.where(over, column - out_w, column)
    row += tl.where(over, step_h + 1, step_h)
    over = row >= out_h
    row = tl.where(over, row - out_h, row)
    image += tl.where(over, step_n + 1, step_n)
    return image, row, column


@triton.jit
def wgrad_kernel(
    x, x_scale, x_shift, dz, p, r, y, q, dw,
    batch, src_h, src_w, src_c, out_h, out_w, out_c, span,
    CG: tl.constexpr, KG: tl.constexpr, R: tl.constexpr, S: tl.constexpr,
    STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr, PAD_H: tl.constexpr, PAD_W: tl.constexpr,
    DIL_H: tl.constexpr, DIL_W: tl.constexpr, WORD: tl.constexpr, LEAD: tl.constexpr, RUN: tl.constexpr,
    SPLIT: tl.constexpr, TAPS_LAST: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """One tile of dw = Σ over pixels of (p·dz + q·y + r) ⊗ relu(x·x_scale + x_shift at the tap).

    x (batch, src_h, src_w, src_c), dz and y (batch, out_h, out_w, out_c). Each program of the grid's third
    axis adds ``span`` pixels. SPLIT: it stores an fp32 part (split, K, R, S, CG) that ``wgrad_reduce_kernel``
    adds up in order; else dw itself, (K, CG, R, S) with TAPS_LAST and (K, R, S, CG) without. WORD > 0: the
    columns of a row of taps are a run (``_runs.py``) in RUN places, which have room for whole words.
    """
    POINTWISE: tl.constexpr = R * S == 1 and PAD_H == 0 and PAD_W == 0
    RUNS: tl.constexpr = WORD > 0
    # A run is walked as RUN taps of one channel.
    TAP: tl.constexpr = 1 if RUNS else CG
    TAPS_W: tl.constexpr = RUN if RUNS else S
    STEP_W: tl.constexpr = STRIDE_W * CG if RUNS else STRIDE_W
    EDGE_W: tl.constexpr = PAD_W * CG + LEAD if RUNS else PAD_W
    COLS: tl.constexpr = R * TAPS_W * TAP
    column_tiles: tl.constexpr = (COLS + BN - 1) // BN
    ONE_TAP: tl.constexpr = TAP % BN == 0
    width = src_w
    pixel = src_c
    if RUNS:
        width = tl.multiple_of(src_w * CG, WORD)
        pixel = 1
    group = 0 if RUNS else tl.program_id(1)  # addresses are known to be words' multiples
    k = tl.program_id(0) // column_tiles * BM + tl.arange(0, BM)
    first_column = tl.program_id(0) % column_tiles * BN
    column = first_column + tl.arange(0, BN)
    k_inside = k < KG
    column_inside = column < COLS
    c = column % TAP
    tap_h = column // (TAP * TAPS_W)
    tap_w = column // TAP % TAPS_W
    # A tile within one tap has scalar shifts, and one bounds check a pixel instead of one a value.
    if ONE_TAP:
        shift_h = first_column // (TAP * TAPS_W) * DIL_H
        shift_w = first_column // TAP % TAPS_W * DIL_W
    else:
        shift_h = (tap_h * DIL_H)[None, :]
        shift_w = (tap_w * DIL_W)[None, :]
    x_shift_at = ((tap_h * DIL_H * width + tap_w * DIL_W) * pixel + group * CG + c)[None, :]
    loaded = column_inside
    dense = column
    if RUNS:
        loaded = loaded & (tap_w < LEAD + S * CG)
        column_inside = loaded & (tap_w >= LEAD)
        c = (tap_w - LEAD) % CG
        dense = tap_h * (S * CG) + tap_w - LEAD
    pixels = batch * out_h * out_w
    split = tl.program_id(2)
    if WIDE:
        split = split.to(tl.int64)
    lane = tl.arange(0, BK)
    # At stride 1 a 1×1 reads where the result's pixel lies; elsewhere the pixel's row and column are needed.
    IN_PLACE: tl.constexpr = POINTWISE and STRIDE_H == 1 and STRIDE_W == 1
    if not IN_PLACE:
        m = split * span + lane
        image = m // (out_w * out_h)
        out_row = m // out_w % out_h
        out_column = m % out_w
        step_n = BK // (out_w * out_h)
        step_h = BK // out_w % out_h
        step_w = BK % out_w
    acc = tl.zeros((BM, BN), tl.float32)
    for start in range(0, span, BK):
        m = split * span + start + lane
        live = (m < pixels)[:, None]
        dy = tl.load(
            dz + m[:, None] * out_c + (group * KG + k)[None, :], mask=live & k_inside[None, :], other=0.0
        )
        if p is not None:
            value = affine_inside(dy.to(tl.float32), p, r, group * KG + k, k_inside, live)
            if y is not None:
                at = m[:, None] * out_c + (group * KG + k)[None, :]
                extra = tl.load(y + at, mask=live & k_inside[None, :], other=0.0).to(tl.float32)
                value = tl.fma(extra, channel(q, group * KG + k, k_inside), value)
            dy = value.to(dy.dtype)
        if IN_PLACE:
            origin = m[:, None]
            ok = live
        else:
            h = (out_row * STRIDE_H - PAD_H)[:, None]
            v = (out_column * STEP_W - EDGE_W)[:, None]
            origin = (image[:, None] * src_h + h) * width + v
            ok = live
            if not POINTWISE:
                ok = (
                    ok
                    & (h + shift_h >= 0)
                    & (h + shift_h < src_h)
                    & (v + shift_w >= 0)
                    & (v + shift_w < width)
                )
        if COLS % BN != 0 or RUNS:
            ok = ok & loaded[None, :]
        a = tl.load(x + origin * pixel + x_shift_at, mask=ok, other=0.0)
        if x_scale is not None:
            value = affine_inside(a.to(tl.float32), x_scale, x_shift, group * CG + c, column_inside, ok)
            a = relu(value).to(a.dtype)
        acc = tl.dot(tl.trans(factor(dy, PRECISION)), factor(a, PRECISION), acc, input_precision=PRECISION)
        if not IN_PLACE:
            image, out_row, out_column = _advanced(
                image, out_row, out_column, step_n, step_h, step_w, out_h, out_w
            )
    filters = group * KG + k
    inside = k_inside[:, None] & column_inside[None, :]
    if SPLIT:
        at = (split.to(tl.int64) * out_c + filters[:, None]) * (R * S * CG) + dense[None, :]
        tl.store(dw + at, acc, mask=inside)
    else:
        if TAPS_LAST:
            dense = c * (R * S) + dense // CG
        at = filters[:, None] * (R * S * CG) + dense[None, :]
        tl.store(dw + at, acc.to(dw.dtype.element_ty), mask=inside)


@triton.jit
def wgrad_reduce_kernel(parts, dw, splits, size, CG: tl.constexpr, TAPS: tl.constexpr, BLOCK: tl.constexpr):
    """parts (splits, K, TAPS, CG) fp32 → dw (K, CG, TAPS), added in order."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    total = tl.zeros((BLOCK,), tl.float32)
    part = parts + at
    for _ in range(0, splits):
        total += tl.load(part, mask=inside, other=0.0)
        part += size
    c = at % CG
    tap = at // CG % TAPS
    k = at // (CG * TAPS)
    tl.store(dw + (k * CG + c) * TAPS + tap, total.to(dw.dtype.element_ty), mask=inside)
