"""The stem's affine + ReLU + max-pool, and its backward."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fusedres.backends.reference._library import implements
from fusedres.backends.reference._maths import activated, gradient_sums, rounded, wide


@implements("affine_act_maxpool")
def affine_act_maxpool(y: Tensor, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    pooled, flat = F.max_pool2d(activated(y, s, t), 3, 2, 1, return_indices=True)
    first_row = torch.arange(pooled.shape[2], device=y.device)[:, None] * 2 - 1
    first_column = torch.arange(pooled.shape[3], device=y.device) * 2 - 1
    row, column = flat // y.shape[3], flat % y.shape[3]
    return rounded(pooled, y.dtype), rounded(3 * (row - first_row) + column - first_column, torch.uint8)


@implements("affine_act_maxpool_bwd")
def affine_act_maxpool_bwd(
    dout: Tensor, index: Tensor, y: Tensor, s: Tensor, t: Tensor, mean: Tensor, invstd: Tensor
) -> tuple[Tensor, Tensor]:
    (n, c, h, w), (p, q) = y.shape, dout.shape[2:]
    gradient = wide(dout)
    padded = gradient.new_zeros(n, c, 2 * p + 1, 2 * q + 1)
    # Windows that share a pixel reach it from different places, so one place at a time needs no atomics.
    for place in range(9):
        row, column = divmod(place, 3)
        taken = torch.where(index == place, gradient, 0)
        padded[:, :, row : row + 2 * p : 2, column : column + 2 * q : 2] += taken
    inside = padded[:, :, 1 : h + 1, 1 : w + 1]
    dz = rounded(torch.where(activated(y, s, t) > 0, inside, 0), y.dtype)
    return dz, gradient_sums(dz, y, mean, invstd)
