"""``affine_act_maxpool`` and its backward: the stem without writing its 112 × 112 map twice."""

from __future__ import annotations

import torch
from torch import Tensor

from fusedres.ops import _checks
from fusedres.ops._dispatch import resolve_backend
from fusedres.ops._registry import kernel, kernel_op
from fusedres.ops._shapes import Geometry, conv_output_shape, empty_nhwc, sums_fake

#: ResNet's stem pools 3 × 3, stride 2, padding 1; a window has nine places, so an index fits a byte.
POOL = Geometry(stride=(2, 2), padding=(1, 1))


def pooled_shape(y: Tensor) -> tuple[int, int, int, int]:
    """(N, C, P, Q) of the pooled map of ``y`` (N, C, H, W)."""
    return conv_output_shape(y.shape, (y.shape[1], 1, 3, 3), POOL)


@kernel_op("affine_act_maxpool", "(Tensor y, Tensor s, Tensor t) -> (Tensor out, Tensor index)")
def affine_act_maxpool_fake(y: Tensor, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    shape = pooled_shape(y)
    return empty_nhwc(y, shape), empty_nhwc(y, shape, torch.uint8)


@kernel_op(
    "affine_act_maxpool_bwd",
    "(Tensor dout, Tensor index, Tensor y, Tensor s, Tensor t, Tensor mean, Tensor invstd)"
    " -> (Tensor dz, Tensor sums)",
)
def affine_act_maxpool_bwd_fake(
    dout: Tensor, index: Tensor, y: Tensor, s: Tensor, t: Tensor, mean: Tensor, invstd: Tensor
) -> tuple[Tensor, Tensor]:
    return empty_nhwc(y, y.shape), sums_fake(y, y.shape[1])


def affine_act_maxpool(
    y: Tensor, s: Tensor, t: Tensor, *, backend: str | None = None
) -> tuple[Tensor, Tensor]:
    """``maxpool(relu(y * s + t))`` with a 3 × 3 window, stride 2, padding 1.

    Values are rounded to ``y``'s dtype before they are compared, as when the activation is written out.

    Returns:
        ``out`` (N, C, P, Q) channels_last in ``y``'s dtype, and ``index`` of the same shape, uint8: the
        place 3·r + s in the window of the first maximum in row-major order, torch's own tie rule.
    """
    _checks.activation("affine_act_maxpool", "y", y)
    for name, vector in (("s", s), ("t", t)):
        _checks.channel_vector("affine_act_maxpool", name, vector, y.shape[1], y)
    out, index = kernel(resolve_backend(y, backend), "affine_act_maxpool")(_checks.nhwc(y), s, t)
    return out, index


def affine_act_maxpool_bwd(
    dout: Tensor,
    index: Tensor,
    y: Tensor,
    s: Tensor,
    t: Tensor,
    mean: Tensor,
    invstd: Tensor,
    *,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """The gradient at the BatchNorm's output, and the sums its backward needs.

    Returns:
        ``dz`` (N, C, H, W) channels_last: ``dout`` scattered to each window's maximum, where
        y·s + t > 0; and ``sums`` (2 T, C) fp32: Σdz and Σ(dz·x̂) of each of T parts, with
        x̂ = (y − mean)·invstd. T is the back-end's own; :func:`bn_bwd_finalize` adds them.
    """
    op = "affine_act_maxpool_bwd"
    _checks.activation(op, "y", y)
    _checks.like(op, "dout", dout, pooled_shape(y), y)
    _checks.shaped(op, "index", index, pooled_shape(y), torch.uint8)
    for name, vector in (("s", s), ("t", t), ("mean", mean), ("invstd", invstd)):
        _checks.channel_vector(op, name, vector, y.shape[1], y)
    run = kernel(resolve_backend(y, backend), op)
    dz, sums = run(_checks.nhwc(dout), _checks.nhwc(index), _checks.nhwc(y), s, t, mean, invstd)
    return dz, sums
