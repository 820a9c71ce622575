"""The arithmetic that several reference kernels share."""

from __future__ import annotations

import torch
from torch import Tensor

from fusedres.ops._shapes import accumulate_dtype, empty_nhwc

#: Dimensions a per-channel reduction runs over.
ALL_BUT_CHANNELS = (0, 2, 3)


def wide(x: Tensor) -> Tensor:
    """``x`` in its accumulation dtype."""
    return x.to(accumulate_dtype(x.dtype))


def rounded(value: Tensor, dtype: torch.dtype) -> Tensor:
    """A fresh channels_last copy of ``value`` in ``dtype``: the one rounding of an output."""
    return empty_nhwc(value, value.shape, dtype).copy_(value)


def per_channel(vector: Tensor, like: Tensor) -> Tensor:
    """A (C,) vector as (C, 1, 1) in ``like``'s dtype, to broadcast over (N, C, H, W)."""
    return vector.to(like.dtype)[:, None, None]


def affine(x: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    """``x * scale + shift`` for a widened ``x``; absent means 1 and 0."""
    if scale is not None:
        x = x * per_channel(scale, x)
    if shift is not None:
        x = x + per_channel(shift, x)
    return x


def activated(y: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    """``relu(y * scale + shift)`` as if it had been written out in ``y``'s dtype, then widened again.

    Without ``scale`` and ``shift`` the input is an activation already and is taken as it is.
    """
    if scale is None:
        return wide(y)
    return wide(affine(wide(y), scale, shift).relu().to(y.dtype))


def output_gradient(
    dz: Tensor, y: Tensor | None, p: Tensor | None, q: Tensor | None, r: Tensor | None
) -> Tensor:
    """``p·dz + q·y + r``, widened: BatchNorm's input gradient, from coefficients of ``bn_bwd_finalize``."""
    dy = affine(wide(dz), p, r)
    if y is not None and q is not None:
        dy = dy + wide(y) * per_channel(q, dy)
    return dy


def gradient_sums(dz: Tensor, y: Tensor | None, mean: Tensor | None, invstd: Tensor | None) -> Tensor:
    """(2, C): Σdz and Σ(dz·x̂) with x̂ = (y − mean)·invstd; the second row is zero without ``mean``.

    In float64, as torch's own CPU BatchNorm does it: the terms cancel, their roundings do not.
    """
    exact = dz.double()
    total = exact.sum(ALL_BUT_CHANNELS)
    if y is None or mean is None or invstd is None:
        projected = torch.zeros_like(total)
    else:
        normalized = (y.double() - per_channel(mean, exact)) * per_channel(invstd, exact)
        projected = (exact * normalized).sum(ALL_BUT_CHANNELS)
    return torch.stack((total, projected)).to(accumulate_dtype(dz.dtype))
