"""oneDNN's convolutions as ATen offers them, and when they can be used."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from fusedres.backends.cpu._packed import bias_of, packed_weight
from fusedres.backends.cpu.convert import converted
from fusedres.ops._shapes import empty_nhwc

Ints = Sequence[int]


@cache
def onednn_serves(dtype: torch.dtype) -> bool:
    """Whether ATen gives convolutions of this type to oneDNN; bf16 only where the CPU has AVX-512."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    return dtype != torch.bfloat16 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def can_fuse(x: Tensor, residual: Tensor | None = None, groups: int = 1) -> bool:
    """Whether oneDNN's fused convolution takes these operands.

    It refuses empty ones, and ATen's form for a residual has no grouped bf16.
    """
    return onednn_serves(x.dtype) and x.numel() > 0 and (residual is None or groups == 1)


def fused_conv(
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
    *,
    into_residual: bool = False,
) -> Tensor:
    """``relu(conv(x, w) * scale + shift + residual)`` in one launch.

    ``into_residual`` writes the result over ``residual``, for a caller that owns it.
    """
    packed = packed_weight(w, scale, x.shape, stride, padding, dilation, groups)
    geometry = (padding, stride, dilation, groups)
    act = "relu" if relu else "none"
    if residual is None:
        # This form takes an fp32 bias beside bf16 activations; the one below does not.
        bias = bias_of(shift, torch.float32)
        out: Tensor = torch.ops.mkldnn._convolution_pointwise.default(x, packed, bias, *geometry, act, [], "")
        return out
    bias = bias_of(shift, x.dtype)
    unary = "relu" if relu else None
    if into_residual:
        run = torch.ops.mkldnn._convolution_pointwise_.binary
        return run(residual, x, packed, bias, *geometry, "add", None, unary, [], "")  # type: ignore[no-any-return]
    run = torch.ops.mkldnn._convolution_pointwise.binary
    return run(x, residual, packed, bias, *geometry, "add", None, unary, [], "")  # type: ignore[no-any-return]


def convolution(x: Tensor, w: Tensor, stride: Ints, padding: Ints, dilation: Ints, groups: int) -> Tensor:
    """The plain convolution, channels_last."""
    dtype = _served(x.dtype)
    geometry = stride, padding, dilation, False, (0, 0), groups
    y: Tensor = torch.ops.aten.convolution.default(converted(x, dtype), w.to(dtype), None, *geometry)
    return converted(y.contiguous(memory_format=torch.channels_last), x.dtype)


def _served(dtype: torch.dtype) -> torch.dtype:
    """A type that ATen gives to oneDNN: its own convolution of bf16 takes 5 times as long."""
    wide = dtype == torch.bfloat16 and not onednn_serves(dtype) and onednn_serves(torch.float32)
    return torch.float32 if wide else dtype


def input_gradient(
    dy: Tensor, x_shape: Ints, w: Tensor, stride: Ints, padding: Ints, dilation: Ints, groups: int
) -> Tensor:
    """The gradient of :func:`convolution` for its input, channels_last."""
    dtype = _served(dy.dtype)
    x = empty_nhwc(dy, x_shape, dtype)  # whose values are not read
    dx = _gradients(converted(dy, dtype), x, w.to(dtype), stride, padding, dilation, groups, of="x")
    return converted(dx.contiguous(memory_format=torch.channels_last), dy.dtype)


def weight_gradient(
    dy: Tensor, x: Tensor, w_shape: Ints, stride: Ints, padding: Ints, dilation: Ints, groups: int
) -> Tensor:
    """The gradient of :func:`convolution` for its weight."""
    dtype = _served(dy.dtype)
    w = x.new_empty(tuple(w_shape), dtype=dtype)  # whose values are not read
    operands = converted(dy, dtype), converted(x, dtype), w
    return _gradients(*operands, stride, padding, dilation, groups, of="w").to(dy.dtype)


def _gradients(
    dy: Tensor, x: Tensor, w: Tensor, stride: Ints, padding: Ints, dilation: Ints, groups: int, of: str
) -> Tensor:
    wanted = (of == "x", of == "w", False)
    dx, dw, _ = torch.ops.aten.convolution_backward.default(
        dy, x, w, None, stride, padding, dilation, False, (0, 0), groups, wanted
    )
    gradient: Tensor = dx if of == "x" else dw
    return gradient
