"""What ours leave in parts, as the baselines have it: mean and biased variance, whole sums."""

from __future__ import annotations

from torch import Tensor

from fusedres import ops


def merged(*outputs: Tensor) -> tuple[Tensor, ...]:
    """(…, count, mean, m2) of our ops to (…, mean, var)."""
    *others, count, mean, m2 = outputs
    mean, var, *_ = ops.bn_finalize(count, mean, m2)
    return (*others, mean, var)


def added(first: Tensor, *sums: Tensor) -> tuple[Tensor, ...]:
    """(dz, sums (2 T, C)…) of our ops to (dz, sums (2, C)…); absent ones stay."""
    whole = [s.view(-1, 2, s.shape[1]).sum(0) if s.dim() == 2 else s for s in sums]
    return (first, *whole)
