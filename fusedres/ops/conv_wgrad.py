"""``conv_wgrad``: a convolution's weight gradient with both operands formed as they are loaded."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fusedres.ops import _checks
from fusedres.ops._dispatch import resolve_backend
from fusedres.ops._registry import CONV_ARGS, kernel, kernel_op
from fusedres.ops._shapes import conv_output_shape, empty_nhwc


@kernel_op(
    "conv_wgrad",
    "(Tensor x, Tensor dz, Tensor? in_s, Tensor? in_t, Tensor? y, Tensor? p, Tensor? q, Tensor? r,"
    f" SymInt[4] w_shape, {CONV_ARGS}, bool channels_last) -> Tensor",
)
def conv_wgrad_fake(
    x: Tensor,
    dz: Tensor,
    in_s: Tensor | None,
    in_t: Tensor | None,
    y: Tensor | None,
    p: Tensor | None,
    q: Tensor | None,
    r: Tensor | None,
    w_shape: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    channels_last: bool,
) -> Tensor:
    return empty_nhwc(x, w_shape) if channels_last else x.new_empty(tuple(w_shape))


def conv_wgrad(
    x: Tensor,
    dz: Tensor,
    in_s: Tensor | None = None,
    in_t: Tensor | None = None,
    y: Tensor | None = None,
    p: Tensor | None = None,
    q: Tensor | None = None,
    r: Tensor | None = None,
    *,
    w_shape: Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    channels_last: bool = False,
    backend: str | None = None,
) -> Tensor:
    """``dw = wgrad(relu(x * in_s + in_t), p·dz + q·y + r)``.

    Args:
        x: (N, C, H, W); with ``in_s`` and ``in_t`` (C,) it is activated as it is loaded.
        dz, y: (N, K, P, Q); ``p``, ``q``, ``r`` (K,) as in :func:`conv_dgrad`.
        w_shape: (K, C / groups, R, S).
        channels_last: the layout of dw, which should be the weight's: autograd then keeps it as it is.

    Returns:
        dw of ``w_shape``, contiguous or channels_last, in ``x``'s dtype.
    """
    op = "conv_wgrad"
    w_shape = _checks.shape4(op, "w_shape", w_shape)
    g = _checks.conv_shapes(op, "x", x.shape, w_shape, stride, padding, dilation, groups)
    _checks.like(op, "dz", dz, conv_output_shape(x.shape, w_shape, g), x)
    _checks.like(op, "y", y, dz.shape, dz)
    _checks.both_or_neither(op, in_s=in_s, in_t=in_t)
    _checks.both_or_neither(op, y=y, q=q, r=r)
    if q is not None and p is None:
        raise ValueError(f"{op}: `p` must be given with `q` and `r`; got p=None")
    for name, vector in (("in_s", in_s), ("in_t", in_t)):
        _checks.channel_vector(op, name, vector, x.shape[1], x)
    for name, vector in (("p", p), ("q", q), ("r", r)):
        _checks.channel_vector(op, name, vector, w_shape[0], x)
    run = kernel(resolve_backend(x, backend), op)
    maps = _checks.nhwc(x), _checks.nhwc(dz), in_s, in_t, _checks.nhwc(y)
    dw: Tensor = run(*maps, p, q, r, w_shape, *g, channels_last)
    return dw
