"""``bn_stats``: per-tile statistics of a tensor that exists already."""

from __future__ import annotations

from torch import Tensor

from fusedres.ops import _checks
from fusedres.ops._dispatch import resolve_backend
from fusedres.ops._registry import kernel, kernel_op
from fusedres.ops._shapes import partials_fake


@kernel_op("bn_stats", "(Tensor y) -> (Tensor count, Tensor mean, Tensor m2)")
def bn_stats_fake(y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return partials_fake(y, y.shape[1])


def bn_stats(y: Tensor, *, backend: str | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Per-tile (count, mean, M2) of ``y`` (N, C, H, W): what :func:`conv_stats` returns beside its output.

    Returns:
        ``count`` (T,), ``mean`` (T, C), ``m2`` (T, C), fp32; T is the back-end's own.
    """
    _checks.activation("bn_stats", "y", y)
    count, mean, m2 = kernel(resolve_backend(y, backend), "bn_stats")(_checks.nhwc(y))
    return count, mean, m2
