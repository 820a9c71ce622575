"""Convolutions with what surrounds them: forward, statistics, both gradients, a whole bottleneck."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from fusedres.backends.reference._library import implements
from fusedres.backends.reference._maths import (
    activated,
    affine,
    gradient_sums,
    output_gradient,
    rounded,
    wide,
)
from fusedres.backends.reference.statistics import bn_stats
from fusedres.ops._shapes import absent, empty_nhwc
from fusedres.ops.bottleneck_infer import middle_geometry

Ints = Sequence[int]


@contextmanager
def _exact_convolutions(x: Tensor) -> Iterator[None]:
    """Keep cuDNN from TF32 and from algorithms that sum in a varying order."""
    if not x.is_cuda:
        yield
        return
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield


def _convolve(x: Tensor, w: Tensor, stride: Ints, padding: Ints, dilation: Ints, groups: int) -> Tensor:
    with _exact_convolutions(x):
        return F.conv2d(x, wide(w), None, stride, padding, dilation, groups)


def _convolve_backward(
    dy: Tensor, x: Tensor, w: Tensor, stride: Ints, padding: Ints, dilation: Ints, groups: int, of: str
) -> Tensor:
    """The gradient of ``_convolve`` for ``of`` = "x" or "w"; the other one's values are not read."""
    wanted = [of == "x", of == "w", False]
    with _exact_convolutions(dy):
        gradients = torch.ops.aten.convolution_backward(
            dy, x, w, None, stride, padding, dilation, False, [0, 0], groups, wanted
        )
    gradient: Tensor = gradients[0] if of == "x" else gradients[1]
    return gradient


@implements("conv_affine_act")
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
    out = affine(_convolve(wide(x), w, stride, padding, dilation, groups), scale, shift)
    if residual is not None:
        out = out + wide(residual)
    return rounded(out.relu() if relu else out, x.dtype)


@implements("conv_stats")
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
    a = activated(x, in_scale, in_shift)
    y = rounded(_convolve(a, w, stride, padding, dilation, groups), x.dtype)
    return y, *bn_stats(y)


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
    x = dy.new_empty(1).expand(tuple(x_shape))
    dx = _convolve_backward(dy, x, wide(w), stride, padding, dilation, groups, of="x")
    if add is not None:
        dx = dx + wide(add)
    if prev_y is None:
        return rounded(dx, dz.dtype), absent(dy)
    dx = torch.where(activated(prev_y, prev_s, prev_t) > 0, dx, 0)
    masked = rounded(dx, dz.dtype)
    return masked, gradient_sums(masked, prev_y, prev_mean, prev_invstd)


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
    a = activated(x, in_s, in_t)
    w = a.new_empty(1).expand(tuple(w_shape))
    dw = _convolve_backward(output_gradient(dz, y, p, q, r), a, w, stride, padding, dilation, groups, of="w")
    out = empty_nhwc(x, w_shape) if channels_last else x.new_empty(tuple(w_shape))
    return out.copy_(dw)


@implements("bottleneck_infer")
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
    one = ((1, 1), (0, 0), (1, 1), 1)
    middle = middle_geometry(stride, dilation, groups)
    a1 = conv_affine_act(x, w1, s1, t1, None, True, *one)
    a2 = conv_affine_act(a1, w2, s2, t2, None, True, *middle)
    out = affine(_convolve(wide(a2), w3, *one), s3, t3)
    if wd is None:
        out = out + wide(x)
    else:
        out = out + affine(_convolve(wide(x), wd, stride, (0, 0), (1, 1), 1), sd, td)
    return rounded(out.relu(), x.dtype)
