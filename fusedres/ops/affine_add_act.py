"""``affine_add_act``: the join of a residual block, affine + add + ReLU in one pass."""

from __future__ import annotations

import torch
from torch import Tensor

from fusedres.ops import _checks
from fusedres.ops._dispatch import resolve_backend
from fusedres.ops._registry import kernel, kernel_op
from fusedres.ops._shapes import empty_nhwc


@kernel_op(
    "affine_add_act",
    "(Tensor a, Tensor sa, Tensor ta, Tensor? b, Tensor? sb, Tensor? tb, bool relu) -> Tensor",
)
def affine_add_act_fake(
    a: Tensor, sa: Tensor, ta: Tensor, b: Tensor | None, sb: Tensor | None, tb: Tensor | None, relu: bool
) -> Tensor:
    return empty_nhwc(a, a.shape)


def affine_add_act(
    a: Tensor,
    sa: Tensor,
    ta: Tensor,
    b: Tensor | None = None,
    sb: Tensor | None = None,
    tb: Tensor | None = None,
    relu: bool = True,
    *,
    backend: str | None = None,
) -> Tensor:
    """``relu(a * sa + ta [+ b | + b * sb + tb])``, computed in fp32, written once.

    Args:
        a: (N, C, H, W). b: the same shape and dtype: the identity (``sb``, ``tb`` absent) or a
            downsample's convolution output with its affine. sa, ta, sb, tb: (C,).

    Returns:
        (N, C, H, W), channels_last, in ``a``'s dtype.
    """
    _checks.activation("affine_add_act", "a", a)
    _checks.like("affine_add_act", "b", b, a.shape, a)
    _checks.both_or_neither("affine_add_act", sb=sb, tb=tb)
    if b is None and sb is not None:
        raise ValueError(
            "affine_add_act: `sb` and `tb` are the affine of `b`, which must then be given; got b=None"
        )
    for name, vector in (("sa", sa), ("ta", ta), ("sb", sb), ("tb", tb)):
        _checks.channel_vector("affine_add_act", name, vector, a.shape[1], a)
    run = kernel(resolve_backend(a, backend), "affine_add_act")
    out: torch.Tensor = run(_checks.nhwc(a), sa, ta, _checks.nhwc(b), sb, tb, relu)
    return out
