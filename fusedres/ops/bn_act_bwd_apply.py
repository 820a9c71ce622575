"""``bn_act_bwd_apply``: BatchNorm's input gradient, where it must be written out."""

from __future__ import annotations

from torch import Tensor

from fusedres.ops import _checks
from fusedres.ops._dispatch import resolve_backend
from fusedres.ops._registry import kernel, kernel_op
from fusedres.ops._shapes import absent, empty_nhwc


@kernel_op(
    "bn_act_bwd_apply",
    "(Tensor dz, Tensor y, Tensor p, Tensor q, Tensor r,"
    " Tensor? y2, Tensor? p2, Tensor? q2, Tensor? r2) -> (Tensor dy, Tensor dy2)",
)
def bn_act_bwd_apply_fake(
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
    return empty_nhwc(dz, dz.shape), empty_nhwc(dz, dz.shape) if y2 is not None else absent(dz)


def bn_act_bwd_apply(
    dz: Tensor,
    y: Tensor,
    p: Tensor,
    q: Tensor,
    r: Tensor,
    y2: Tensor | None = None,
    p2: Tensor | None = None,
    q2: Tensor | None = None,
    r2: Tensor | None = None,
    *,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """``dy = p·dz + q·y + r``, and the same for a second branch that shares ``dz``.

    Args:
        dz, y, y2: (N, C, H, W) of one dtype. The coefficients: (C,) each, from :func:`bn_bwd_finalize`.

    Returns:
        ``dy`` like ``dz``; ``dy2`` like ``dz``, or empty without ``y2``.
    """
    op = "bn_act_bwd_apply"
    _checks.activation(op, "dz", dz)
    _checks.like(op, "y", y, dz.shape, dz)
    _checks.like(op, "y2", y2, dz.shape, dz)
    _checks.both_or_neither(op, y2=y2, p2=p2, q2=q2, r2=r2)
    for name, vector in (("p", p), ("q", q), ("r", r), ("p2", p2), ("q2", q2), ("r2", r2)):
        _checks.channel_vector(op, name, vector, dz.shape[1], dz)
    run = kernel(resolve_backend(dz, backend), op)
    dy, dy2 = run(_checks.nhwc(dz), _checks.nhwc(y), p, q, r, _checks.nhwc(y2), p2, q2, r2)
    return dy, dy2
