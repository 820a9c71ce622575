"""``conv_dgrad``: a convolution's input gradient with BatchNorm's backward fused on both sides."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fusedres.ops import _checks
from fusedres.ops._dispatch import resolve_backend
from fusedres.ops._registry import CONV_ARGS, kernel, kernel_op
from fusedres.ops._shapes import accumulate_dtype, conv_output_shape, empty_nhwc, sums_fake


@kernel_op(
    "conv_dgrad",
    "(Tensor dz, Tensor w, Tensor? y, Tensor? p, Tensor? q, Tensor? r, Tensor? add,"
    " Tensor? prev_y, Tensor? prev_s, Tensor? prev_t, Tensor? prev_mean, Tensor? prev_invstd,"
    f" SymInt[4] x_shape, {CONV_ARGS}) -> (Tensor dx, Tensor sums)",
)
def conv_dgrad_fake(
    dz: Tensor,
    w: Tensor,
    y: Tensor | None,
    p: Tensor | None,
    q: Tensor | None,
    r: Tensor | None,
    add: Tensor | None,
    prev_y: Tensor | None,
    prev_s: Tensor | None,
    prev_t: Tensor | None,
    prev_mean: Tensor | None,
    prev_invstd: Tensor | None,
    x_shape: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> tuple[Tensor, Tensor]:
    none = torch.empty(0, dtype=accumulate_dtype(dz.dtype), device=dz.device)
    return empty_nhwc(dz, x_shape), none if prev_y is None else sums_fake(dz, x_shape[1])


def conv_dgrad(
    dz: Tensor,
    w: Tensor,
    y: Tensor | None = None,
    p: Tensor | None = None,
    q: Tensor | None = None,
    r: Tensor | None = None,
    add: Tensor | None = None,
    prev_y: Tensor | None = None,
    prev_s: Tensor | None = None,
    prev_t: Tensor | None = None,
    prev_mean: Tensor | None = None,
    prev_invstd: Tensor | None = None,
    *,
    x_shape: Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """``dx = dgrad(p·dz + q·y + r, w) + add``, then mask and sums of the BatchNorm before it.

    Args:
        dz: (N, K, P, Q). w: (K, C / groups, R, S). y: like ``dz``, the convolution's own output.
        p: (K,) alone scales dz (frozen BatchNorm); with ``q``, ``r`` and ``y`` it is BatchNorm's
            backward; without ``p``, dz is taken as it is.
        add: (N, C, H, W), the gradient that reaches the same input by another way.
        prev_y: (N, C, H, W), what the BatchNorm before normalised: the result is then masked by
            prev_y·prev_s + prev_t > 0 (prev_y > 0 without ``prev_s``: a saved activation), and summed.
        x_shape: (N, C, H, W).

    Returns:
        ``dx`` (or the masked dz of the layer before) of ``x_shape``, channels_last, and ``sums``
        (2 T, C) fp32: Σdz and Σ(dz·x̂) of each of its T parts (the latter zero without ``prev_mean``);
        empty without ``prev_y``. T is the back-end's own; :func:`bn_bwd_finalize` adds them.
    """
    op = "conv_dgrad"
    x_shape = _checks.shape4(op, "x_shape", x_shape)
    g = _checks.conv_shapes(op, "x_shape", x_shape, w, stride, padding, dilation, groups)
    _checks.like(op, "dz", dz, conv_output_shape(x_shape, w.shape, g), w)
    _checks.like(op, "y", y, dz.shape, dz)
    _checks.both_or_neither(op, y=y, q=q, r=r)
    if q is not None and p is None:
        raise ValueError(f"{op}: `p` must be given with `q` and `r`; got p=None")
    for name, tensor in (("add", add), ("prev_y", prev_y)):
        _checks.like(op, name, tensor, x_shape, dz)
    _checks.both_or_neither(op, prev_s=prev_s, prev_t=prev_t)
    _checks.both_or_neither(op, prev_mean=prev_mean, prev_invstd=prev_invstd)
    if prev_y is None and (prev_s is not None or prev_mean is not None):
        raise ValueError(f"{op}: `prev_y` must be given with `prev_s` or `prev_mean`; got prev_y=None")
    for name, vector in (("p", p), ("q", q), ("r", r)):
        _checks.channel_vector(op, name, vector, w.shape[0], dz)
    prev = {"prev_s": prev_s, "prev_t": prev_t, "prev_mean": prev_mean, "prev_invstd": prev_invstd}
    for name, vector in prev.items():
        _checks.channel_vector(op, name, vector, x_shape[1], dz)
    nhwc = _checks.nhwc
    run = kernel(resolve_backend(dz, backend), op)
    dx, sums = run(nhwc(dz), w, nhwc(y), p, q, r, nhwc(add), nhwc(prev_y), *prev.values(), x_shape, *g)
    return dx, sums
