"""Convolution gradients with BatchNorm's backward around them: one pass of ours before and after each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fusedres.backends.cpu import _onednn, engine
from fusedres.backends.cpu._library import implements
from fusedres.backends.cpu.conv import activated
from fusedres.ops._registry import kernel
from fusedres.ops._shapes import absent

Ints = Sequence[int]


def output_gradient(
    dz: Tensor, y: Tensor | None, p: Tensor | None, q: Tensor | None, r: Tensor | None
) -> Tensor:
    """``p·dz + q·y + r``, ``p·dz``, or ``dz``: what reached the convolution's output."""
    if p is None:
        return dz
    if y is None:
        scaled: Tensor = kernel("cpu", "affine_add_act")(dz, p, torch.zeros_like(p), None, None, None, False)
        return scaled
    dy: Tensor = kernel("cpu", "bn_act_bwd_apply")(dz, y, p, q, r, None, None, None, None)[0]
    return dy


class Turned(NamedTuple):
    """dgrad at stride 1 as a convolution: its filters, its padding, and the engine's algorithm for it."""

    w: Tensor
    padding: Ints
    algorithm: engine.Algorithm


def turned(dy: Tensor, w: Tensor, stride: Ints, padding: Ints, dilation: Ints, groups: int) -> Turned | None:
    """The convolution that is this dgrad, where the engine does it faster than oneDNN its dgrad."""
    rows, cols = w.shape[2:]
    around = (rows - 1 - padding[0], cols - 1 - padding[1])
    if tuple(stride) != (1, 1) or groups != 1 or min(around) < 0:
        return None
    shape = (w.shape[1], w.shape[0], rows, cols)
    algorithm = engine.choose(dy.shape, dy.dtype, shape, stride, around, dilation, groups, "dgrad")
    if algorithm is None:
        return None
    return Turned((w if rows * cols == 1 else w.flip(2, 3)).transpose(0, 1), around, algorithm)


def strided(
    dy: Tensor, w: Tensor, stride: Ints, padding: Ints, dilation: Ints, groups: int
) -> engine.Algorithm | None:
    """The engine's algorithm for a dgrad at a stride, where it is faster than oneDNN's."""
    less_than_taps = all(pad < taps for pad, taps in zip(padding, w.shape[2:], strict=True))
    if tuple(stride) == (1, 1) or not less_than_taps:
        return None
    across = w.transpose(0, 1).shape
    return engine.choose(dy.shape, dy.dtype, across, stride, padding, dilation, groups, "strided_dgrad")


def input_gradient(
    dy: Tensor,
    w: Tensor,
    add: Tensor | None,
    x_shape: Ints,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    groups: int,
) -> Tensor:
    """``dgrad(dy, w) + add``: ours where that is faster than the library's."""
    if (conv := turned(dy, w, stride, padding, dilation, groups)) is not None:
        return engine.conv_once(dy, conv.w, add, (1, 1), conv.padding, conv.algorithm)
    if (algorithm := strided(dy, w, stride, padding, dilation, groups)) is not None:
        return engine.dgrad_strided(dy, w, add, x_shape, stride, padding, algorithm)
    dx = _onednn.input_gradient(dy, x_shape, w, stride, padding, dilation, groups)
    return dx if add is None else dx.add_(add)


@implements("conv_dgrad")
def conv_dgrad(
    dz: Tensor,
    w: Tensor,
    y: Tensor | None,
    p: Tensor | None,
    q: Tensor | None,
    r: Tensor | None,
    add: Tensor | None,
    prev_y: Tensor | None,
    prev_s: Tensor | None,
    prev_t: Tensor | None,
    prev_mean: Tensor | None,
    prev_invstd: Tensor | None,
    x_shape: Ints,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    groups: int,
) -> tuple[Tensor, Tensor]:
    dy = output_gradient(dz, y, p, q, r)
    if prev_y is None:
        dx = input_gradient(dy, w, add, x_shape, stride, padding, dilation, groups)
        return dx, absent(torch.empty(0))
    # Without an affine the mask is prev_y > 0: it is an activation, not what BatchNorm took.
    out = prev_y if prev_s is None else None
    y_before = prev_y if prev_s is not None or prev_mean is not None else None
    before = (out, y_before, prev_s, prev_t, prev_mean, prev_invstd)
    conv = turned(dy, w, stride, padding, dilation, groups) if add is None else None
    if conv is not None:
        return engine.conv_once_reduce(dy, conv.w, before, conv.padding, conv.algorithm)
    dx = input_gradient(dy, w, add, x_shape, stride, padding, dilation, groups)
    dz_before, sums, _ = kernel("cpu", "bn_act_bwd_reduce")(dx, *before, None, None, None)
    return dz_before, sums


@implements("conv_wgrad")
def conv_wgrad(
    x: Tensor,
    dz: Tensor,
    in_s: Tensor | None,
    in_t: Tensor | None,
    y: Tensor | None,
    p: Tensor | None,
    q: Tensor | None,
    r: Tensor | None,
    w_shape: Ints,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    groups: int,
    channels_last: bool,
) -> Tensor:
    dy = output_gradient(dz, y, p, q, r)
    algorithm = engine.choose(x.shape, x.dtype, w_shape, stride, padding, dilation, groups, "wgrad")
    if algorithm is not None:
        return engine.wgrad(x, dy, in_s, in_t, w_shape, stride, padding, algorithm, channels_last)
    geometry = stride, padding, dilation, groups
    dw = _onednn.weight_gradient(dy, activated(x, in_s, in_t), w_shape, *geometry)
    return dw.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
