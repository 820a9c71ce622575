"""The input gradient: BatchNorm's backward formed on load, that of the layer before in the epilogue."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fusedres.backends.triton._conv import Epilogue, Previous, Prologue, run_conv
from fusedres.backends.triton._library import implements
from fusedres.ops._shapes import Geometry, empty_nhwc


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
    x_shape: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> tuple[Tensor, Tensor]:
    g = Geometry((stride[0], stride[1]), (padding[0], padding[1]), (dilation[0], dilation[1]), groups)
    dx = empty_nhwc(dz, x_shape)
    previous = None if prev_y is None else Previous(prev_y, prev_s, prev_t, prev_mean, prev_invstd)
    epilogue = Epilogue(add=add, previous=previous)
    sums = run_conv(dz, w, dx, g, Prologue(p, r, y, q), epilogue, dgrad=True).sums
    return dx, dz.new_empty(0, dtype=torch.float32) if sums is None else sums
