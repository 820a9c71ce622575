"""``bottleneck_infer``: a whole residual block in one launch."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fusedres.ops import _checks
from fusedres.ops._caches import eagerly
from fusedres.ops._dispatch import resolve_backend
from fusedres.ops._registry import kernel, kernel_op
from fusedres.ops._shapes import Geometry, conv_output_shape, empty_nhwc, pair


def middle_geometry(stride: Sequence[int], dilation: Sequence[int], groups: int) -> Geometry:
    """The bottleneck's 3 × 3: torchvision pads by the dilation, so that stride 1 keeps the size."""
    d = (dilation[0], dilation[1])
    return Geometry((stride[0], stride[1]), d, d, groups)


@kernel_op(
    "bottleneck_infer",
    "(Tensor x, Tensor w1, Tensor s1, Tensor t1, Tensor w2, Tensor s2, Tensor t2, Tensor w3, Tensor s3,"
    " Tensor t3, Tensor? wd, Tensor? sd, Tensor? td, SymInt[2] stride, SymInt[2] dilation, SymInt groups)"
    " -> Tensor",
)
def bottleneck_infer_fake(
    x: Tensor,
    w1: Tensor,
    s1: Tensor,
    t1: Tensor,
    w2: Tensor,
    s2: Tensor,
    t2: Tensor,
    w3: Tensor,
    s3: Tensor,
    t3: Tensor,
    wd: Tensor | None,
    sd: Tensor | None,
    td: Tensor | None,
    stride: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    _, _, p, q = conv_output_shape(x.shape, w2.shape, middle_geometry(stride, dilation, groups))
    return empty_nhwc(x, (x.shape[0], w3.shape[0], p, q))


def bottleneck_infer(
    x: Tensor,
    w1: Tensor,
    s1: Tensor,
    t1: Tensor,
    w2: Tensor,
    s2: Tensor,
    t2: Tensor,
    w3: Tensor,
    s3: Tensor,
    t3: Tensor,
    wd: Tensor | None = None,
    sd: Tensor | None = None,
    td: Tensor | None = None,
    *,
    stride: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    backend: str | None = None,
) -> Tensor:
    """A whole bottleneck in inference: 1×1, 3×3 and 1×1 convolutions with their affines, the join, ReLU.

    Args:
        x: (N, C, H, W). w1: (M, C, 1, 1). w2: (M, M / groups, 3, 3). w3: (K, M, 1, 1).
        wd: (K, C, 1, 1), the downsample's, absent for an identity; then C = K and stride 1.
        s·, t·: each convolution's affine, fp32 (or the weights' dtype).
        stride, dilation, groups: the 3 × 3's; the downsample has the same stride.

    Returns:
        (N, K, P, Q), channels_last, in ``x``'s dtype.
    """
    op = "bottleneck_infer"
    one = Geometry()
    middle = middle_geometry(pair(stride), pair(dilation), groups)
    _checks.conv(op, x, w1, *one, weight_name="w1", size=(1, 1))
    inner = conv_output_shape(x.shape, w1.shape, one)
    _checks.conv_shapes(op, "w1", inner, w2, *middle, weight_name="w2", size=(3, 3))
    mid = conv_output_shape(inner, w2.shape, middle)
    _checks.conv_shapes(op, "w2", mid, w3, *one, weight_name="w3", size=(1, 1))
    _checks.both_or_neither(op, wd=wd, sd=sd, td=td)
    out_shape = conv_output_shape(mid, w3.shape, one)
    if wd is not None:
        skip = Geometry(stride=middle.stride)
        _checks.conv(op, x, wd, *skip, weight_name="wd", size=(1, 1))
        _checks.equal_shapes(op, "wd", conv_output_shape(x.shape, wd.shape, skip), out_shape)
    else:
        _checks.equal_shapes(op, "x", x.shape, out_shape)
    _checks.same_dtype_device(op, x, w1=w1, w2=w2, w3=w3, wd=wd)
    for name, vector, w in (
        ("1", (s1, t1), w1),
        ("2", (s2, t2), w2),
        ("3", (s3, t3), w3),
        ("d", (sd, td), w3),
    ):
        _checks.channel_vector(op, "s" + name, vector[0], w.shape[0], x)
        _checks.channel_vector(op, "t" + name, vector[1], w.shape[0], x)
    run = kernel(resolve_backend(x, backend), op)
    out: Tensor = eagerly(
        run,
        _checks.nhwc(x),
        w1,
        s1,
        t1,
        w2,
        s2,
        t2,
        w3,
        s3,
        t3,
        wd,
        sd,
        td,
        middle.stride,
        middle.dilation,
        groups,
    )
    return out
