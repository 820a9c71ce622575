"""``bn_act_bwd_reduce``: ReLU's mask and BatchNorm's backward sums in one pass."""

from __future__ import annotations

import torch
from torch import Tensor

from fusedres.ops import _checks
from fusedres.ops._dispatch import resolve_backend
from fusedres.ops._registry import kernel, kernel_op
from fusedres.ops._shapes import absent, accumulate_dtype, empty_nhwc, sums_fake


@kernel_op(
    "bn_act_bwd_reduce",
    "(Tensor dout, Tensor? out, Tensor? y, Tensor? s, Tensor? t, Tensor? mean, Tensor? invstd,"
    " Tensor? y2, Tensor? mean2, Tensor? invstd2) -> (Tensor dz, Tensor sums, Tensor sums2)",
)
def bn_act_bwd_reduce_fake(
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
    masked = out is not None or s is not None
    dz = empty_nhwc(dout, dout.shape) if masked else absent(dout)
    none = torch.empty(0, dtype=accumulate_dtype(dout.dtype), device=dout.device)
    channels = dout.shape[1]
    return dz, sums_fake(dout, channels), none if y2 is None else sums_fake(dout, channels)


def bn_act_bwd_reduce(
    dout: Tensor,
    out: Tensor | None = None,
    y: Tensor | None = None,
    s: Tensor | None = None,
    t: Tensor | None = None,
    mean: Tensor | None = None,
    invstd: Tensor | None = None,
    y2: Tensor | None = None,
    mean2: Tensor | None = None,
    invstd2: Tensor | None = None,
    *,
    backend: str | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """``dz``, the gradient behind the ReLU, with Σdz and Σ(dz·x̂) for one or both branches of a join.

    The mask is ``out > 0`` where ``out`` is given (a join, or a frozen BatchNorm's saved output), else
    ``y·s + t > 0`` rounded to ``y``'s dtype (an inner activation), else there is none.

    Args:
        dout, out, y, y2: (N, C, H, W) of one dtype. s, t, mean, invstd, mean2, invstd2: (C,).
            Without ``y`` (frozen BatchNorm) only Σdz is formed.

    Returns:
        ``dz`` like ``dout``, or empty where there is no mask (then dz is dout);
        ``sums`` (2 T, C) fp32: Σdz and Σ(dz·x̂) of each of T parts, the latter zero without ``y``;
        ``sums2`` (2 T, C): the same with x̂ of ``y2``, or empty without it. T is the back-end's own;
        :func:`bn_bwd_finalize` adds them.
    """
    op = "bn_act_bwd_reduce"
    _checks.activation(op, "dout", dout)
    for name, tensor in (("out", out), ("y", y), ("y2", y2)):
        _checks.like(op, name, tensor, dout.shape, dout)
    _checks.both_or_neither(op, s=s, t=t)
    _checks.both_or_neither(op, y=y, mean=mean, invstd=invstd)
    _checks.both_or_neither(op, y2=y2, mean2=mean2, invstd2=invstd2)
    if s is not None and y is None:
        raise ValueError(f"{op}: `s` and `t` form the mask from `y`, which must then be given; got y=None")
    vectors = {"s": s, "t": t, "mean": mean, "invstd": invstd, "mean2": mean2, "invstd2": invstd2}
    for name, vector in vectors.items():
        _checks.channel_vector(op, name, vector, dout.shape[1], dout)
    run = kernel(resolve_backend(dout, backend), op)
    nhwc = _checks.nhwc
    dz, sums, sums2 = run(nhwc(dout), nhwc(out), nhwc(y), s, t, mean, invstd, nhwc(y2), mean2, invstd2)
    return dz, sums, sums2
