"""Per-tile statistics as the baselines have them: mean and biased variance."""

from __future__ import annotations

from torch import Tensor

from fusedres import ops


def merged(*outputs: Tensor) -> tuple[Tensor, ...]:
    """(…, count, mean, m2) of our ops to (…, mean, var)."""
    *others, count, mean, m2 = outputs
    mean, var, *_ = ops.bn_finalize(count, mean, m2)
    return (*others, mean, var)
