"""The convolution ops around torch's own convolutions, with our pointwise kernels before and after.

What the C++ kernels hand a call on to where they do not serve it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from fusedres.backends.cuda._library import composes
from fusedres.ops._registry import kernel
from fusedres.ops._shapes import absent, empty_nhwc
from fusedres.ops.bottleneck_infer import middle_geometry

Ints = Sequence[int]


@contextmanager
def _deterministic() -> Iterator[None]:
    """cuDNN's backward algorithms sum by atomics unless told not to."""
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = before


def _convolution(x: Tensor, w: Tensor, stride: Ints, padding: Ints, dilation: Ints, groups: int) -> Tensor:
    with _deterministic():
        y: Tensor = torch.ops.aten.convolution.default(
            x, w, None, stride, padding, dilation, False, (0, 0), groups
        )
    return y.contiguous(memory_format=torch.channels_last)


def _gradient(
    dy: Tensor, x: Tensor, w: Tensor, stride: Ints, padding: Ints, dilation: Ints, groups: int, of: str
) -> Tensor:
    """The gradient of :func:`_convolution` for ``of`` = "x" or "w"; the other one's values are not read."""
    wanted = (of == "x", of == "w", False)
    with _deterministic():
        dx, dw, _ = torch.ops.aten.convolution_backward.default(
            dy, x, w, None, stride, padding, dilation, False, (0, 0), groups, wanted
        )
    gradient: Tensor = dx if of == "x" else dw
    return gradient


def _affine(
    y: Tensor, scale: Tensor | None, shift: Tensor | None, residual: Tensor | None, relu: bool
) -> Tensor:
    if scale is None and shift is None and residual is None and not relu:
        return y
    if scale is None:
        scale = torch.ones(y.shape[1], device=y.device)
    if shift is None:
        shift = torch.zeros(y.shape[1], device=y.device)
    out: Tensor = kernel("cuda", "affine_add_act")(y, scale, shift, residual, None, None, relu)
    return out


def _activated(x: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    """``relu(x * scale + shift)``, or ``x`` as it is."""
    return x if scale is None else _affine(x, scale, shift, None, True)


def _output_gradient(
    dz: Tensor, y: Tensor | None, p: Tensor | None, q: Tensor | None, r: Tensor | None
) -> Tensor:
    """``p·dz + q·y + r``, ``p·dz``, or ``dz``: what reached the convolution's output."""
    if p is None:
        return dz
    if y is None:
        return _affine(dz, p, None, None, False)
    dy: Tensor = kernel("cuda", "bn_act_bwd_apply")(dz, y, p, q, r, None, None, None, None)[0]
    return dy


@composes("conv_affine_act")
def conv_affine_act(
    x: Tensor,
    w: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    residual: Tensor | None,
    relu: bool,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    groups: int,
) -> Tensor:
    y = _convolution(x, w, stride, padding, dilation, groups)
    return _affine(y, scale, shift, residual, relu)


@composes("conv_stats")
def conv_stats(
    x: Tensor,
    w: Tensor,
    in_scale: Tensor | None,
    in_shift: Tensor | None,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    groups: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    y = _convolution(_activated(x, in_scale, in_shift), w, stride, padding, dilation, groups)
    return y, *kernel("cuda", "bn_stats")(y)


@composes("conv_dgrad")
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
    dy = _output_gradient(dz, y, p, q, r)
    x = empty_nhwc(dy, x_shape)
    dx = _gradient(dy, x, w, stride, padding, dilation, groups, of="x")
    dx = dx.contiguous(memory_format=torch.channels_last)
    dx = dx if add is None else dx.add_(add)
    if prev_y is None:
        return dx, absent(torch.empty(0, device=dz.device))
    out, y_of_mask = (prev_y, None) if prev_s is None else (None, prev_y)
    if prev_mean is not None:
        y_of_mask = prev_y
    reduce = kernel("cuda", "bn_act_bwd_reduce")
    dz_before, sums, _ = reduce(dx, out, y_of_mask, prev_s, prev_t, prev_mean, prev_invstd, None, None, None)
    return dz_before, sums


@composes("conv_wgrad")
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
    dy = _output_gradient(dz, y, p, q, r)
    w = x.new_empty(tuple(w_shape))
    dw = _gradient(dy, _activated(x, in_s, in_t), w, stride, padding, dilation, groups, of="w")
    return dw.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


@composes("bottleneck_infer")
def bottleneck_infer(
    x: Tensor,
    w1: Tensor,
    s1: Tensor,
    t1: Tensor,
    w2: Tensor,
    s2: Tensor,
    t2: Tensor,
    w3: Tensor,
    s3: Tensor,
    t3: Tensor,
    wd: Tensor | None,
    sd: Tensor | None,
    td: Tensor | None,
    stride: Ints,
    dilation: Ints,
    groups: int,
) -> Tensor:
    """A launch a convolution, each ours where ours serves."""
    conv = kernel("cuda", "conv_affine_act")
    one = ((1, 1), (0, 0), (1, 1), 1)
    inner = conv(x, w1, s1, t1, None, True, *one)
    inner = conv(inner, w2, s2, t2, None, True, *middle_geometry(stride, dilation, groups))
    skip = x if wd is None else conv(x, wd, sd, td, None, False, stride, (0, 0), (1, 1), 1)
    out: Tensor = conv(inner, w3, s3, t3, skip, True, *one)
    return out
