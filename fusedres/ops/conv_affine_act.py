"""``conv_affine_act``: convolution, per-channel affine, residual add and ReLU in one launch."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fusedres.ops import _checks
from fusedres.ops._caches import eagerly
from fusedres.ops._dispatch import resolve_backend
from fusedres.ops._registry import CONV_ARGS, kernel, kernel_op
from fusedres.ops._shapes import Geometry, conv_output_shape, empty_nhwc


@kernel_op(
    "conv_affine_act",
    f"(Tensor x, Tensor w, Tensor? scale, Tensor? shift, Tensor? residual, bool relu, {CONV_ARGS}) -> Tensor",
)
def conv_affine_act_fake(
    x: Tensor,
    w: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    residual: Tensor | None,
    relu: bool,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    g = Geometry((stride[0], stride[1]), (padding[0], padding[1]), (dilation[0], dilation[1]), groups)
    return empty_nhwc(x, conv_output_shape(x.shape, w.shape, g))


def conv_affine_act(
    x: Tensor,
    w: Tensor,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    residual: Tensor | None = None,
    relu: bool = True,
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    backend: str | None = None,
) -> Tensor:
    """``relu(conv(x, w) * scale + shift + residual)`` in one launch: inference and frozen BatchNorm.

    Args:
        x: (N, C, H, W), converted to channels_last where it is not.
        w: (K, C / groups, R, S), in ``x``'s dtype.
        scale, shift: (K,) each, applied in fp32; absent means 1 and 0.
        residual: (N, K, P, Q), in ``x``'s dtype.
        backend: a back-end's name; ``None`` follows ``fusedres.backend()``.

    Returns:
        (N, K, P, Q), channels_last, in ``x``'s dtype.

    Raises:
        ValueError: a shape or a number that does not fit; it names the argument.
        TypeError: mixed dtypes.
    """
    g = _checks.conv("conv_affine_act", x, w, stride, padding, dilation, groups)
    out_shape = conv_output_shape(x.shape, w.shape, g)
    _checks.channel_vector("conv_affine_act", "scale", scale, out_shape[1], x)
    _checks.channel_vector("conv_affine_act", "shift", shift, out_shape[1], x)
    _checks.like("conv_affine_act", "residual", residual, out_shape, x)
    run = kernel(resolve_backend(x, backend), "conv_affine_act")
    out: Tensor = eagerly(run, _checks.nhwc(x), w, scale, shift, _checks.nhwc(residual), relu, *g)
    return out
