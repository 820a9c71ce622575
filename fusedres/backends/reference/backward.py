"""BatchNorm's backward: mask and sums, coefficients, and the gradient where it is written out."""

from __future__ import annotations

import torch
from torch import Tensor

from fusedres.backends.reference._library import implements
from fusedres.backends.reference._maths import activated, gradient_sums, output_gradient, rounded
from fusedres.ops._shapes import absent


@implements("bn_act_bwd_reduce")
def bn_act_bwd_reduce(
    dout: Tensor,
    out: Tensor | None,
    y: Tensor | None,
    s: Tensor | None,
    t: Tensor | None,
    mean: Tensor | None,
    invstd: Tensor | None,
    y2: Tensor | None,
    mean2: Tensor | None,
    invstd2: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    masked = dout
    if out is not None:
        masked = torch.where(out > 0, dout, 0)
    elif y is not None and s is not None:
        masked = torch.where(activated(y, s, t) > 0, dout, 0)
    sums = gradient_sums(masked, y, mean, invstd)
    sums2 = absent(sums) if y2 is None else gradient_sums(masked, y2, mean2, invstd2)
    dz = absent(dout) if masked is dout else rounded(masked, dout.dtype)
    return dz, sums, sums2


@implements("bn_bwd_finalize")
def bn_bwd_finalize(
    sums: Tensor, gamma: Tensor | None, mean: Tensor, invstd: Tensor, n: int, frozen: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    dbeta, dgamma = sums.double().view(-1, 2, sums.shape[1]).sum(0)
    mu, inv = mean.double(), invstd.double()
    p = inv if gamma is None else inv * gamma.double()
    if frozen:
        q = r = torch.zeros_like(p)
    else:
        values = max(n, 1)  # an empty batch has sums of 0, and coefficients of 0 with them
        q = (-p * inv * dgamma / values).to(sums.dtype).double()
        r = -p * dbeta / values - q * mu  # of the rounded q: q·y + r then vanishes at the mean
    a, b, c, d, e = (v.to(sums.dtype, copy=True) for v in (dgamma, dbeta, p, q, r))
    return a, b, c, d, e


@implements("bn_act_bwd_apply")
def bn_act_bwd_apply(
    dz: Tensor,
    y: Tensor,
    p: Tensor,
    q: Tensor,
    r: Tensor,
    y2: Tensor | None,
    p2: Tensor | None,
    q2: Tensor | None,
    r2: Tensor | None,
) -> tuple[Tensor, Tensor]:
    dy = rounded(output_gradient(dz, y, p, q, r), dz.dtype)
    dy2 = absent(dz) if y2 is None else rounded(output_gradient(dz, y2, p2, q2, r2), dz.dtype)
    return dy, dy2
