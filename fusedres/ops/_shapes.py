"""Shapes and dtypes that several ops share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Geometry(NamedTuple):
    """How a convolution walks over its input, in torch's terms."""

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


def pair(value: int | Sequence[int]) -> tuple[int, int]:
    """``3`` and ``(3, 3)`` alike, as torch takes them."""
    if isinstance(value, int):
        return value, value
    h, w = value
    return h, w


def conv_output_shape(
    x_shape: Sequence[int], w_shape: Sequence[int], g: Geometry
) -> tuple[int, int, int, int]:
    """(N, K, P, Q) of a convolution of ``x`` (N, C, H, W) with ``w`` (K, C / groups, R, S)."""
    spatial = [
        (x_shape[2 + i] + 2 * g.padding[i] - g.dilation[i] * (w_shape[2 + i] - 1) - 1) // g.stride[i] + 1
        for i in (0, 1)
    ]
    return x_shape[0], w_shape[0], spatial[0], spatial[1]


def accumulate_dtype(dtype: torch.dtype) -> torch.dtype:
    """Statistics, affines and sums are fp32; float64 (the reference alone) keeps float64."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def empty_nhwc(like: Tensor, shape: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
    """An uninitialised channels_last tensor on ``like``'s device, in ``like``'s dtype unless told."""
    return torch.empty(
        tuple(shape), dtype=dtype or like.dtype, device=like.device, memory_format=torch.channels_last
    )


def prefers_channels_last(w: Tensor) -> bool:
    """Whether a weight lies channels_last; one that lies both ways, as 1×1 does, counts as contiguous."""
    return w.is_contiguous(memory_format=torch.channels_last) and not w.is_contiguous()


def absent(like: Tensor) -> Tensor:
    """What an op returns in place of an output that was not asked for."""
    return torch.empty(0, dtype=like.dtype, device=like.device)


def channel_vectors(like: Tensor, channels: int, count: int) -> tuple[Tensor, ...]:
    """``count`` fresh per-channel vectors in ``like``'s accumulation dtype."""
    dtype = accumulate_dtype(like.dtype)
    return tuple(torch.empty(channels, dtype=dtype, device=like.device) for _ in range(count))


def sums_fake(like: Tensor, channels: int) -> Tensor:
    """(2 T, C): two sums in each of T parts, as many as each back-end likes."""
    parts = torch.library.get_ctx().new_dynamic_size()
    return torch.empty(2 * parts, channels, dtype=accumulate_dtype(like.dtype), device=like.device)


def partials_fake(y: Tensor, channels: int) -> tuple[Tensor, Tensor, Tensor]:
    """(count (T,), mean (T, C), m2 (T, C)); the number of tiles T is each back-end's own."""
    tiles = torch.library.get_ctx().new_dynamic_size()
    dtype = accumulate_dtype(y.dtype)
    return (
        torch.empty(tiles, dtype=dtype, device=y.device),
        torch.empty(tiles, channels, dtype=dtype, device=y.device),
        torch.empty(tiles, channels, dtype=dtype, device=y.device),
    )
