"""Plain PyTorch's convolutions with products in TF32, on the CPU: the yardstick of TF32 results.

TF32 keeps ten of fp32's 23 bits of mantissa. A GPU's tensor cores round a convolution's two operands to it,
in the forward and in both products of the backward, and sum in fp32.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

DROPPED_BITS = 13


def rounded(x: Tensor) -> Tensor:
    """To TF32, the nearest, ties away from zero: PTX's ``cvt.rna.tf32.f32``."""
    bits = x.view(torch.int32)
    half = 1 << (DROPPED_BITS - 1)
    return ((bits + half) & -(1 << DROPPED_BITS)).view(torch.float32)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, geometry: tuple[Any, ...]) -> Tensor:
        x, w = rounded(x), rounded(w)
        ctx.save_for_backward(x, w)
        ctx.geometry = geometry
        return torch.ops.aten.convolution(x, w, None, *geometry)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, None]:
        x, w = ctx.saved_tensors
        found = torch.ops.aten.convolution_backward(
            rounded(dy), x, w, None, *ctx.geometry, (True, True, False)
        )
        return found[0], found[1], None


def _conv_forward(conv: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    assert bias is None and isinstance(conv.padding, tuple), "a ResNet's convolutions have no bias"
    return _Convolution.apply(
        x, weight, (conv.stride, conv.padding, conv.dilation, False, (0, 0), conv.groups)
    )


@contextmanager
def tf32_convolutions() -> Iterator[None]:
    """Every fp32 ``nn.Conv2d`` called inside rounds as TF32 does, in its later backward too."""
    with patch.object(nn.Conv2d, "_conv_forward", _conv_forward):
        yield
