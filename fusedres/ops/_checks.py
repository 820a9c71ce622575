"""Checks of the public wrappers: each names the argument, states the rule and prints what it got."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import overload

import torch
from torch import Tensor

from fusedres.ops._shapes import Geometry, conv_output_shape, pair

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (int, torch.SymInt, Integral)
NUMBERS = (float, int, torch.SymFloat, Real)


@overload
def nhwc(x: Tensor) -> Tensor: ...
@overload
def nhwc(x: None) -> None: ...
def nhwc(x: Tensor | None) -> Tensor | None:
    """``x`` in channels_last, copied only where it is not."""
    return None if x is None else x.contiguous(memory_format=torch.channels_last)


def tensor(op: str, name: str, value: object) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{op}: `{name}` must be a tensor; got {type(value).__name__}")


def number(op: str, name: str, value: object) -> None:
    if not isinstance(value, NUMBERS):
        raise TypeError(f"{op}: `{name}` must be a number; got {value!r}")


def activation(op: str, name: str, x: Tensor) -> None:
    tensor(op, name, x)
    if x.dim() != 4:
        raise ValueError(f"{op}: `{name}` must have 4 dimensions (N, C, H, W); got shape {tuple(x.shape)}")
    if x.dtype not in FLOATS:
        raise TypeError(f"{op}: `{name}` must be a floating tensor; got {x.dtype}")


def like(op: str, name: str, value: Tensor | None, shape: Sequence[int], other: Tensor) -> None:
    """``value``, where given, has ``shape``, and ``other``'s dtype and device."""
    if value is not None:
        shaped(op, name, value, shape, other.dtype)
        if value.device != other.device:
            raise ValueError(f"{op}: `{name}` must be on {other.device}; got {value.device}")


def shaped(op: str, name: str, value: Tensor, shape: Sequence[int], dtype: torch.dtype) -> None:
    tensor(op, name, value)
    if tuple(value.shape) != tuple(shape):
        raise ValueError(f"{op}: `{name}` must have shape {tuple(shape)}; got {tuple(value.shape)}")
    if value.dtype != dtype:
        raise TypeError(f"{op}: `{name}` must be {dtype}; got {value.dtype}")


def channel_vector(op: str, name: str, vector: Tensor | None, channels: int, other: Tensor) -> None:
    """A per-channel parameter: (channels,), any floating dtype (read as fp32), ``other``'s device."""
    if vector is None:
        return
    tensor(op, name, vector)
    if tuple(vector.shape) != (channels,):
        raise ValueError(f"{op}: `{name}` must have shape ({channels},); got {tuple(vector.shape)}")
    if vector.dtype not in FLOATS:
        raise TypeError(f"{op}: `{name}` must be a floating tensor; got {vector.dtype}")
    if vector.device != other.device:
        raise ValueError(f"{op}: `{name}` must be on {other.device}; got {vector.device}")


def norm_vector(op: str, name: str, vector: Tensor | None, channels: int, x: Tensor) -> None:
    """A BatchNorm's :func:`channel_vector`: fp32 or ``x``'s dtype, which is what torch's takes."""
    channel_vector(op, name, vector, channels, x)
    if vector is not None and vector.dtype not in (torch.float32, x.dtype):
        raise TypeError(
            f"{op}: `{name}` must be torch.float32 or have the dtype of `x`, {x.dtype}; got {vector.dtype}"
        )


def batch_count(op: str, name: str, count: Tensor | None) -> None:
    """A BatchNorm's number of batches, where given: one int64."""
    if count is None:
        return
    tensor(op, name, count)
    if count.dtype != torch.int64 or count.numel() != 1:
        raise TypeError(
            f"{op}: `{name}` must be an int64 scalar tensor; got {count.dtype} of shape {tuple(count.shape)}"
        )


def both_or_neither(op: str, **tensors: Tensor | None) -> None:
    given = [name for name, value in tensors.items() if value is not None]
    if given and len(given) < len(tensors):
        names = ", ".join(f"`{name}`" for name in tensors)
        raise ValueError(f"{op}: {names} go together; got only {', '.join(f'`{n}`' for n in given)}")


def equal_shapes(op: str, name: str, got: Sequence[int], rule: Sequence[int]) -> None:
    if tuple(got) != tuple(rule):
        raise ValueError(
            f"{op}: the branch of `{name}` must have the block's output shape {tuple(rule)}; got {tuple(got)}"
        )


def same_dtype_device(op: str, x: Tensor, **tensors: Tensor | None) -> None:
    for name, value in tensors.items():
        if value is None:
            continue
        tensor(op, name, value)
        if value.dtype != x.dtype:
            raise TypeError(f"{op}: `{name}` must have the dtype of `x`, {x.dtype}; got {value.dtype}")
        if value.device != x.device:
            raise ValueError(f"{op}: `{name}` must be on the device of `x`, {x.device}; got {value.device}")


def shape4(op: str, name: str, shape: Sequence[int]) -> tuple[int, ...]:
    if not isinstance(shape, (list, tuple)):
        raise TypeError(f"{op}: `{name}` must be a list or tuple; got {type(shape).__name__}")
    if len(shape) != 4:
        raise ValueError(f"{op}: `{name}` must have 4 entries; got {tuple(shape)}")
    return tuple(shape)


def partials(op: str, count: Tensor, mean: Tensor, m2: Tensor) -> None:
    if count.dim() != 1 or mean.dim() != 2 or mean.shape[0] != count.shape[0]:
        raise ValueError(
            f"{op}: `count` must have shape (T,) and `mean` (T, C); "
            f"got {tuple(count.shape)} and {tuple(mean.shape)}"
        )
    shaped(op, "m2", m2, mean.shape, mean.dtype)


def _pair(op: str, name: str, value: int | Sequence[int], least: int) -> tuple[int, int]:
    try:
        h, w = pair(value)
        if not (isinstance(h, INTEGERS) and isinstance(w, INTEGERS)):
            raise TypeError
    except (TypeError, ValueError):
        raise ValueError(f"{op}: `{name}` must be an int or a pair of ints; got {value!r}") from None
    if h < least or w < least:
        raise ValueError(f"{op}: `{name}` must be at least {least}; got {value!r}")
    return h, w


def geometry(
    op: str,
    stride: int | Sequence[int],
    padding: int | Sequence[int],
    dilation: int | Sequence[int],
    groups: int,
) -> Geometry:
    """Ints and pairs, as torch takes them, to a geometry."""
    return Geometry(
        _pair(op, "stride", stride, 1),
        _pair(op, "padding", padding, 0),
        _pair(op, "dilation", dilation, 1),
        groups,
    )


def conv(
    op: str,
    x: Tensor,
    w: Tensor,
    stride: int | Sequence[int],
    padding: int | Sequence[int],
    dilation: int | Sequence[int],
    groups: int,
    *,
    x_name: str = "x",
    weight_name: str = "w",
    size: tuple[int, int] | None = None,
) -> Geometry:
    """Check a convolution's operands and return its geometry; ``size`` is a fixed (R, S) of the filters."""
    activation(op, x_name, x)
    tensor(op, weight_name, w)  # one that is absent as well
    same_dtype_device(op, x, **{weight_name: w})
    return conv_shapes(
        op, x_name, x.shape, w, stride, padding, dilation, groups, weight_name=weight_name, size=size
    )


def conv_shapes(
    op: str,
    x_name: str,
    x_shape: Sequence[int],
    w: Tensor | Sequence[int],
    stride: int | Sequence[int],
    padding: int | Sequence[int],
    dilation: int | Sequence[int],
    groups: int,
    *,
    weight_name: str = "w",
    size: tuple[int, int] | None = None,
) -> Geometry:
    """The part of :func:`conv` that needs shapes alone; ``size`` is a fixed (R, S) of the filters."""
    if not isinstance(w, (list, tuple)):
        tensor(op, weight_name, w)
    w_shape = tuple(w.shape) if isinstance(w, Tensor) else tuple(w)
    if not isinstance(groups, INTEGERS):
        raise TypeError(f"{op}: `groups` must be an int; got {groups!r}")
    if len(w_shape) != 4:
        raise ValueError(
            f"{op}: `{weight_name}` must have 4 dimensions (K, C / groups, R, S); got shape {w_shape}"
        )
    if groups < 1 or x_shape[1] % groups or w_shape[0] % groups:
        raise ValueError(
            f"{op}: `groups` must divide the {x_shape[1]} channels of `{x_name}` and the {w_shape[0]} "
            f"filters of `{weight_name}`; got {groups}"
        )
    if w_shape[1] * groups != x_shape[1]:
        raise ValueError(
            f"{op}: `{weight_name}` must have {x_shape[1] // groups} = C / groups input channels for "
            f"`{x_name}` of shape {tuple(x_shape)}; got shape {w_shape}"
        )
    if size is not None and w_shape[2:] != size:
        raise ValueError(f"{op}: `{weight_name}` must have filters of size {size}; got shape {w_shape}")
    g = geometry(op, stride, padding, dilation, groups)
    if min(conv_output_shape(x_shape, w_shape, g)[2:]) < 1:
        raise ValueError(
            f"{op}: `{x_name}` of shape {tuple(x_shape)} is smaller than the dilated kernel of "
            f"`{weight_name}` {w_shape} with padding {g.padding}; the output would be empty"
        )
    return g
