"""Forward convolutions: in inference our engine or one oneDNN launch; in training also the statistics."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fusedres.backends.cpu import blocks, engine
from fusedres.backends.cpu._library import implements
from fusedres.backends.cpu._onednn import can_fuse, convolution, fused_conv
from fusedres.ops._registry import kernel
from fusedres.ops._shapes import Geometry, pair
from fusedres.ops.bottleneck_infer import middle_geometry

Ints = Sequence[int]


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
    algorithm = engine.choose(x.shape, x.dtype, w.shape, stride, padding, dilation, groups)
    if algorithm is not None:
        geometry = Geometry(pair(stride), pair(padding), pair(dilation), groups)
        return engine.conv(x, w, scale, shift, residual, relu, geometry, algorithm)
    if can_fuse(x, residual, groups):
        return fused_conv(x, w, scale, shift, residual, relu, stride, padding, dilation, groups)
    y = convolution(x, w, stride, padding, dilation, groups)
    if scale is None:
        scale = torch.ones(y.shape[1])
    if shift is None:
        shift = torch.zeros(y.shape[1])
    out: Tensor = kernel("cpu", "affine_add_act")(y, scale, shift, residual, None, None, relu)
    return out


def activated(x: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    """``relu(x * scale + shift)``, or ``x`` as it is."""
    if scale is None:
        return x
    out: Tensor = kernel("cpu", "affine_add_act")(x, scale, shift, None, None, None, True)
    return out


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
    z = activated(x, in_scale, in_shift)
    algorithm = engine.choose(z.shape, z.dtype, w.shape, stride, padding, dilation, groups, "fprop")
    if algorithm is not None:
        return engine.conv_once_stats(z, w, stride, padding, algorithm)
    y = convolution(z, w, stride, padding, dilation, groups)
    return y, *kernel("cpu", "bn_stats")(y)


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
    branch = None if wd is None or sd is None or td is None else (wd, sd, td)
    whole = blocks.bottleneck(x, ((w1, s1, t1), (w2, s2, t2), (w3, s3, t3)), branch, stride, dilation, groups)
    if whole is not None:
        return whole
    one = ((1, 1), (0, 0), (1, 1), 1)
    inner = conv_affine_act(x, w1, s1, t1, None, True, *one)
    inner = conv_affine_act(inner, w2, s2, t2, None, True, *middle_geometry(stride, dilation, groups))
    skip = x
    if wd is not None:
        skip = conv_affine_act(x, wd, sd, td, None, False, stride, (0, 0), (1, 1), 1)
        if can_fuse(x) and engine.choose(inner.shape, x.dtype, w3.shape, *one) is None:
            return fused_conv(inner, w3, s3, t3, skip, True, *one, into_residual=True)
    out: Tensor = conv_affine_act(inner, w3, s3, t3, skip, True, *one)
    return out
