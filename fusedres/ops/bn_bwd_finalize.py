"""``bn_bwd_finalize``: BatchNorm's parameter gradients and the coefficients of its input gradient."""

from __future__ import annotations

from torch import Tensor

from fusedres.ops import _checks
from fusedres.ops._dispatch import resolve_backend
from fusedres.ops._registry import kernel, kernel_op
from fusedres.ops._shapes import channel_vectors


@kernel_op(
    "bn_bwd_finalize",
    "(Tensor sums, Tensor? gamma, Tensor mean, Tensor invstd, SymInt n, bool frozen)"
    " -> (Tensor dgamma, Tensor dbeta, Tensor p, Tensor q, Tensor r)",
)
def bn_bwd_finalize_fake(
    sums: Tensor, gamma: Tensor | None, mean: Tensor, invstd: Tensor, n: int, frozen: bool
) -> tuple[Tensor, ...]:
    return channel_vectors(sums, sums.shape[1], 5)


def bn_bwd_finalize(
    sums: Tensor,
    gamma: Tensor | None,
    mean: Tensor,
    invstd: Tensor,
    n: int,
    frozen: bool = False,
    *,
    backend: str | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """From ``sums`` (Σdz, Σ(dz·x̂)): dγ, dβ, and p, q, r such that dy = p·dz + q·y + r.

    With batch statistics over n values, p = γ·invstd, q = −p·invstd·Σ(dz·x̂)/n and
    r = −p·Σdz/n − q·mean (Ioffe and Szegedy, 2015, section 3, rearranged). Frozen: q = r = 0.

    Args:
        sums: (2 T, C), T parts' sums, which are added in a fixed order. gamma: (C,) or absent for 1.
        mean, invstd: (C,). n: N·H·W.

    Returns:
        ``dgamma``, ``dbeta``, ``p``, ``q``, ``r``, (C,) each, fp32.
    """
    op = "bn_bwd_finalize"
    channels = mean.shape[0]
    if sums.dim() != 2 or sums.shape[0] % 2 or sums.shape[1] != channels:
        raise ValueError(f"{op}: `sums` must have shape (2 T, {channels}); got {tuple(sums.shape)}")
    _checks.shaped(op, "sums", sums, sums.shape, mean.dtype)
    _checks.channel_vector(op, "gamma", gamma, channels, mean)
    _checks.channel_vector(op, "invstd", invstd, channels, mean)
    run = kernel(resolve_backend(sums, backend), op)
    return tuple(run(sums.contiguous(), gamma, mean, invstd, n, frozen))
