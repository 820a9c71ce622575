"""The weight gradient as a GEMM over pixels: filters × (taps × channels), split over the pixels."""

from __future__ import annotations

import triton
import triton.language as tl

from fusedres.backends.triton._maths import affine, channel, factor, relu


@triton.jit
def wgrad_kernel(
    x, x_scale, x_shift, dz, p, r, y, q, dw,
    batch, src_h, src_w, src_c, out_h, out_w, out_c, span,
    CG: tl.constexpr, KG: tl.constexpr, R: tl.constexpr, S: tl.constexpr,
    STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr, PAD_H: tl.constexpr, PAD_W: tl.constexpr,
    DIL_H: tl.constexpr, DIL_W: tl.constexpr,
    SPLIT: tl.constexpr, TAPS_LAST: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """One tile of dw = Σ over pixels of (p·dz + q·y + r) ⊗ relu(x·x_scale + x_shift at the tap).

    x (batch, src_h, src_w, src_c), dz and y (batch, out_h, out_w, out_c). Each program of the grid's third
    axis adds ``span`` pixels. SPLIT: it stores an fp32 part (split, K, R, S, CG) that ``wgrad_reduce_kernel``
    adds up in order; else dw itself, (K, CG, R, S) with TAPS_LAST and (K, R, S, CG) without.
    """
    POINTWISE: tl.constexpr = R * S == 1 and PAD_H == 0 and PAD_W == 0
    COLS: tl.constexpr = R * S * CG
    column_tiles: tl.constexpr = (COLS + BN - 1) // BN
    ONE_TAP: tl.constexpr = CG % BN == 0
    group = tl.program_id(1)
    k = tl.program_id(0) // column_tiles * BM + tl.arange(0, BM)
    first_column = tl.program_id(0) % column_tiles * BN
    column = first_column + tl.arange(0, BN)
    k_inside = k < KG
    column_inside = column < COLS
    c = column % CG
    tap_h = column // (CG * S)
    tap_w = column // CG % S
    # A tile within one tap has scalar shifts, and one bounds check a pixel instead of one a value.
    if ONE_TAP:
        shift_h = first_column // (CG * S) * DIL_H
        shift_w = first_column // CG % S * DIL_W
    else:
        shift_h = (tap_h * DIL_H)[None, :]
        shift_w = (tap_w * DIL_W)[None, :]
    x_shift_at = ((tap_h * DIL_H * src_w + tap_w * DIL_W) * src_c + group * CG + c)[None, :]
    pixels = batch * out_h * out_w
    split = tl.program_id(2)
    if WIDE:
        split = split.to(tl.int64)
    lane = tl.arange(0, BK)
    acc = tl.zeros((BM, BN), tl.float32)
    for start in range(0, span, BK):
        m = split * span + start + lane
        live = (m < pixels)[:, None]
        dy = tl.load(
            dz + m[:, None] * out_c + (group * KG + k)[None, :], mask=live & k_inside[None, :], other=0.0
        )
        if p is not None:
            value = affine(dy.to(tl.float32), p, r, group * KG + k, k_inside)
            if y is not None:
                at = m[:, None] * out_c + (group * KG + k)[None, :]
                extra = tl.load(y + at, mask=live & k_inside[None, :], other=0.0).to(tl.float32)
                value = tl.fma(extra, channel(q, group * KG + k, k_inside), value)
            dy = tl.where(live, value, 0.0).to(dy.dtype)
        if POINTWISE and STRIDE_H == 1 and STRIDE_W == 1:
            origin = m[:, None]
            ok = live
        else:
            h = (m // out_w % out_h * STRIDE_H - PAD_H)[:, None]
            v = (m % out_w * STRIDE_W - PAD_W)[:, None]
            origin = ((m // (out_w * out_h))[:, None] * src_h + h) * src_w + v
            ok = live
            if not POINTWISE:
                ok = (
                    ok
                    & (h + shift_h >= 0)
                    & (h + shift_h < src_h)
                    & (v + shift_w >= 0)
                    & (v + shift_w < src_w)
                )
        if COLS % BN != 0:
            ok = ok & column_inside[None, :]
        a = tl.load(x + origin * src_c + x_shift_at, mask=ok, other=0.0)
        if x_scale is not None:
            value = relu(affine(a.to(tl.float32), x_scale, x_shift, group * CG + c, column_inside))
            a = tl.where(ok, value, 0.0).to(a.dtype)
        acc = tl.dot(tl.trans(factor(dy, PRECISION)), factor(a, PRECISION), acc, input_precision=PRECISION)
    filters = group * KG + k
    inside = k_inside[:, None] & column_inside[None, :]
    if SPLIT:
        at = (split.to(tl.int64) * out_c + filters[:, None]) * COLS + column[None, :]
        tl.store(dw + at, acc, mask=inside)
    else:
        if TAPS_LAST:
            column = c * (R * S) + column // CG
        at = filters[:, None] * COLS + column[None, :]
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
