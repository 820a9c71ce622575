"""``bn_finalize``: merge per-tile statistics and derive the normalising affine."""

from __future__ import annotations

from torch import Tensor

from fusedres.ops import _checks
from fusedres.ops._dispatch import resolve_backend
from fusedres.ops._registry import kernel, kernel_op
from fusedres.ops._shapes import channel_vectors


@kernel_op(
    "bn_finalize",
    "(Tensor count, Tensor mean, Tensor m2, Tensor? gamma, Tensor? beta, float eps)"
    " -> (Tensor mean, Tensor var, Tensor invstd, Tensor scale, Tensor shift)",
)
def bn_finalize_fake(
    count: Tensor, mean: Tensor, m2: Tensor, gamma: Tensor | None, beta: Tensor | None, eps: float
) -> tuple[Tensor, ...]:
    return channel_vectors(mean, mean.shape[1], 5)


def bn_finalize(
    count: Tensor,
    mean: Tensor,
    m2: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    eps: float = 1e-5,
    *,
    backend: str | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Merge T tiles' (count, mean, M2) by Chan's formula, in a fixed order.

    Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample
    variances" (1979). Never Σx and Σx²: a constant channel has variance 0 exactly.

    Args:
        count: (T,). mean, m2: (T, C). gamma, beta: (C,), absent means 1 and 0.

    Returns:
        ``mean``, ``var`` (biased), ``invstd`` = 1/√(var + eps), ``scale`` = γ·invstd and
        ``shift`` = β − mean·scale, (C,) each, fp32.
    """
    _checks.partials("bn_finalize", count, mean, m2)
    channels = mean.shape[1]
    _checks.channel_vector("bn_finalize", "gamma", gamma, channels, mean)
    _checks.channel_vector("bn_finalize", "beta", beta, channels, mean)
    run = kernel(resolve_backend(mean, backend), "bn_finalize")
    tiles = count.contiguous(), mean.contiguous(), m2.contiguous()
    return tuple(run(*tiles, gamma, beta, eps))
