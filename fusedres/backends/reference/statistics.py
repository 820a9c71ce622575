"""BatchNorm's statistics: taken per image, merged by Chan's formula, folded into the running ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fusedres.backends.reference._library import implements
from fusedres.ops._shapes import accumulate_dtype
from fusedres.ops.bn_update_running import RunningLayer, running_layers


@implements("bn_stats")
def bn_stats(y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One tile an image, so that the merging has something to merge."""
    tiles = y.shape[0] if y.numel() else 0
    pixels = y.shape[2] * y.shape[3]
    values = y[:tiles].flatten(2).double()
    # Deviations from the tile's first value: exactly 0 in a constant channel, whatever the constant.
    deviation = values - values[..., :1]
    mean_deviation = deviation.mean(-1, keepdim=True)
    mean = (values[..., :1] + mean_deviation).squeeze(-1)
    m2 = (deviation - mean_deviation).square().sum(-1)
    dtype = accumulate_dtype(y.dtype)
    count = torch.full((tiles,), pixels, dtype=dtype, device=y.device)
    return count, mean.to(dtype), m2.to(dtype)


def _merge_neighbours(count: Tensor, mean: Tensor, m2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Tiles 0 and 1, 2 and 3, ... merged by Chan's formula; an odd one out is kept."""
    even = count.shape[0] // 2 * 2
    (na, nb), (ma, mb), (sa, sb) = ((v[0:even:2], v[1:even:2]) for v in (count, mean, m2))
    n = na + nb
    weight = nb / n.clamp(min=1)
    delta = mb - ma
    return (
        torch.cat((n, count[even:])),
        torch.cat((ma + delta * weight, mean[even:])),
        torch.cat((sa + sb + delta.square() * na * weight, m2[even:])),
    )


@implements("bn_finalize")
def bn_finalize(
    count: Tensor, mean: Tensor, m2: Tensor, gamma: Tensor | None, beta: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """T × C numbers are few, so they are merged in float64, pairwise. No values: mean and variance 0."""
    n, mu, s = count.double()[:, None], mean.double(), m2.double()
    while n.shape[0] > 1:
        n, mu, s = _merge_neighbours(n, mu, s)
    mu, var = mu.sum(0), (s / n.clamp(min=1)).sum(0)  # of one tile, or none
    invstd = (var + eps).rsqrt()
    scale = invstd if gamma is None else invstd * gamma.double()
    shift = -mu * scale if beta is None else beta.double() - mu * scale
    a, b, c, d, e = (v.to(mean.dtype, copy=True) for v in (mu, var, invstd, scale, shift))
    return a, b, c, d, e


@implements("bn_update_running")
def bn_update_running(
    running_mean: Sequence[Tensor],
    running_var: Sequence[Tensor],
    num_batches_tracked: Sequence[Tensor],
    mean: Sequence[Tensor],
    var: Sequence[Tensor],
    n: Sequence[int],
    momentum: float | None,
) -> None:
    for layer in running_layers(running_mean, running_var, num_batches_tracked, mean, var, n):
        _update_layer(layer, momentum)


def _update_layer(layer: RunningLayer, momentum: float | None) -> None:
    batches, n = layer.num_batches_tracked, layer.n
    if batches is not None:
        batches.add_(1)
    if n == 0:
        return  # an empty batch counts as a batch and moves nothing, as in torch
    factor: float | Tensor
    if momentum is not None:
        factor = momentum
    else:
        assert batches is not None, "the wrapper asks for it where momentum is None"
        factor = batches.double().reciprocal()
    # One value has no unbiased variance; its biased one, 0, keeps the running statistics finite.
    unbiased = layer.var.double() * (n / max(n - 1, 1))
    for running, batch in ((layer.running_mean, layer.mean.double()), (layer.running_var, unbiased)):
        running.copy_(running.double() * (1 - factor) + batch * factor)
