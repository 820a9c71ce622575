"""Convolution gradients with BatchNorm's backward around them: one pass of ours before and after each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fusedres.backends.cpu import engine
from fusedres.backends.cpu._library import implements
from fusedres.backends.cpu._onednn import convolution_gradient
from fusedres.backends.cpu.conv import activated
from fusedres.ops._registry import kernel
from fusedres.ops._shapes import absent, empty_nhwc

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
    """``dgrad(dy, w) + add``; at stride 1 a convolution with turned filters, ours where that is faster."""
    rows, cols = w.shape[2:]
    turned_padding = (rows - 1 - padding[0], cols - 1 - padding[1])
    if tuple(stride) == (1, 1) and groups == 1 and min(turned_padding) >= 0:
        turned_shape = (w.shape[1], w.shape[0], rows, cols)
        algorithm = engine.choose(
            dy.shape, dy.dtype, turned_shape, stride, turned_padding, dilation, groups, "dgrad"
        )
        if algorithm is not None:
            turned = (w if rows * cols == 1 else w.flip(2, 3)).transpose(0, 1)
            return engine.conv_once(dy, turned, add, stride, turned_padding, algorithm)
    x = empty_nhwc(dy, x_shape)
    dx = convolution_gradient(dy, x, w, stride, padding, dilation, groups, of="x")
    dx = dx.contiguous(memory_format=torch.channels_last)
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
    dx = input_gradient(dy, w, add, x_shape, stride, padding, dilation, groups)
    if prev_y is None:
        return dx, absent(torch.empty(0))
    out, y_of_mask = (prev_y, None) if prev_s is None else (None, prev_y)
    if prev_mean is not None:
        y_of_mask = prev_y
    reduce = kernel("cpu", "bn_act_bwd_reduce")
    dz_before, sums, _ = reduce(dx, out, y_of_mask, prev_s, prev_t, prev_mean, prev_invstd, None, None, None)
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
) -> Tensor:
    dy = output_gradient(dz, y, p, q, r)
    w = x.new_empty(tuple(w_shape))
    dw = convolution_gradient(dy, activated(x, in_s, in_t), w, stride, padding, dilation, groups, of="w")
    return dw.contiguous()
