"""Convolution, affine, residual and ReLU in one launch."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fusedres.backends.triton._conv import Epilogue, Prologue, run_conv
from fusedres.backends.triton._library import implements
from fusedres.ops._shapes import Geometry, conv_output_shape, empty_nhwc


@implements("conv_affine_act")
def conv_affine_act(
    x: Tensor,
    w: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    residual: Tensor | None,
    relu: bool,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    g = Geometry((stride[0], stride[1]), (padding[0], padding[1]), (dilation[0], dilation[1]), groups)
    out = empty_nhwc(x, conv_output_shape(x.shape, w.shape, g))
    run_conv(x, w, out, g, Prologue(), Epilogue(scale, shift, residual, relu), dgrad=False)
    return out
