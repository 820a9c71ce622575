"""Convolution with its input activated as it is loaded, and statistics out of its epilogue."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fusedres.backends.triton._conv import Epilogue, Prologue, run_conv
from fusedres.backends.triton._library import implements
from fusedres.ops._shapes import Geometry, conv_output_shape, empty_nhwc


@implements("conv_stats")
def conv_stats(
    x: Tensor,
    w: Tensor,
    in_scale: Tensor | None,
    in_shift: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    g = Geometry((stride[0], stride[1]), (padding[0], padding[1]), (dilation[0], dilation[1]), groups)
    y = empty_nhwc(x, conv_output_shape(x.shape, w.shape, g))
    prologue = Prologue(in_scale, in_shift, relu=in_scale is not None)
    count, mean, m2, _ = run_conv(x, w, y, g, prologue, Epilogue(statistics=True), dgrad=False)
    assert count is not None and mean is not None and m2 is not None
    return y, count, mean, m2
