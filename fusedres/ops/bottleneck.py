"""``fusedres.bottleneck``: the residual block of ResNet-50 and deeper as one autograd function."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fusedres.ops import _checks
from fusedres.ops._block_op import BlockOp
from fusedres.ops._functional import ConvBN, run_block
from fusedres.ops._planned import Choice
from fusedres.ops._shapes import Geometry
from fusedres.ops.bottleneck_infer import middle_geometry

_OP = BlockOp("bottleneck", [(1, 1), (3, 3), (1, 1)], downsample=True, residual=False)


def bottleneck(
    x: Tensor,
    conv1: ConvBN,
    conv2: ConvBN,
    conv3: ConvBN,
    downsample: ConvBN | None = None,
    *,
    stride: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    training: bool = False,
    composition: str | None = None,
    plan: Choice | None = None,
) -> Tensor:
    """1×1, 3×3 and 1×1 convolutions with BatchNorm, ReLU between them, and the join.

    The stride sits on the 3 × 3, as in torchvision ("ResNet v1.5"); He et al., 2015, figure 5 right.

    Args:
        x: (N, C, H, W). conv1: (M, C, 1, 1). conv2: (M, M / groups, 3, 3), with ``stride`` and
            ``dilation``, padded by the dilation. conv3: (K, M, 1, 1).
        downsample: (K, C, 1, 1), with ``stride``; absent means the identity, and then C = K, stride 1.
        training: batch statistics, and running ones updated; else frozen.
        composition: the caller's wish; ``with fusedres.composition(...)`` beats it.
        plan: what to run where composition or back-end is ``auto``: what a plan chose.

    Returns:
        (N, K, P, Q), channels_last, in ``x``'s dtype (autocast's under autocast).

    Raises:
        ValueError, TypeError: an argument that does not fit, named with the rule and what was given.
    """
    middle = _checks.geometry("bottleneck", stride, 1, dilation, groups)
    step = middle.stride
    geometries = [Geometry(), middle_geometry(step, middle.dilation, groups), Geometry()]
    return run_block(
        _OP, x, [conv1, conv2, conv3], geometries, downsample, Geometry(step), None,
        relu=True, training=training, composition=composition, plan=plan,
    )  # fmt: skip
