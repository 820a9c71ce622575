"""``conv_stats``: convolution with the statistics of its output taken in the epilogue."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fusedres.ops import _checks
from fusedres.ops._dispatch import resolve_backend
from fusedres.ops._registry import CONV_ARGS, kernel, kernel_op
from fusedres.ops._shapes import Geometry, conv_output_shape, empty_nhwc, partials_fake


@kernel_op(
    "conv_stats",
    f"(Tensor x, Tensor w, Tensor? in_scale, Tensor? in_shift, {CONV_ARGS})"
    " -> (Tensor y, Tensor count, Tensor mean, Tensor m2)",
)
def conv_stats_fake(
    x: Tensor,
    w: Tensor,
    in_scale: Tensor | None,
    in_shift: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    g = Geometry((stride[0], stride[1]), (padding[0], padding[1]), (dilation[0], dilation[1]), groups)
    y = empty_nhwc(x, conv_output_shape(x.shape, w.shape, g))
    return y, *partials_fake(y, w.shape[0])


def conv_stats(
    x: Tensor,
    w: Tensor,
    in_scale: Tensor | None = None,
    in_shift: Tensor | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    backend: str | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``y = conv(relu(x * in_scale + in_shift), w)`` and the per-tile statistics of ``y``.

    Without ``in_scale`` and ``in_shift`` the input is taken as it is. Zero padding is applied after
    the input's affine and ReLU, so padded pixels stay zero.

    Args:
        x: (N, C, H, W). w: (K, C / groups, R, S). in_scale, in_shift: (C,), both or neither.

    Returns:
        ``y`` (N, K, P, Q) channels_last, ``count`` (T,), ``mean`` (T, K) and ``m2`` (T, K), fp32: the
        number of values, their mean and the sum of squared deviations in each of the T tiles that
        together cover N·P·Q. T is the back-end's own; :func:`bn_finalize` merges them.
    """
    g = _checks.conv("conv_stats", x, w, stride, padding, dilation, groups)
    _checks.both_or_neither("conv_stats", in_scale=in_scale, in_shift=in_shift)
    _checks.channel_vector("conv_stats", "in_scale", in_scale, x.shape[1], x)
    _checks.channel_vector("conv_stats", "in_shift", in_shift, x.shape[1], x)
    run = kernel(resolve_backend(x, backend), "conv_stats")
    y, count, mean, m2 = run(_checks.nhwc(x), w, in_scale, in_shift, *g)
    return y, count, mean, m2
