"""``fusedres.basic_block``: ResNet-18's and -34's residual block as one autograd function."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fusedres.ops import _checks
from fusedres.ops._block_op import BlockOp
from fusedres.ops._functional import ConvBN, run_block
from fusedres.ops._planned import Choice
from fusedres.ops._shapes import Geometry

_OP = BlockOp("basic_block", [(3, 3), (3, 3)], downsample=True, residual=False)


def basic_block(
    x: Tensor,
    conv1: ConvBN,
    conv2: ConvBN,
    downsample: ConvBN | None = None,
    *,
    stride: int | Sequence[int] = 1,
    training: bool = False,
    composition: str | None = None,
    plan: Choice | None = None,
) -> Tensor:
    """``relu(bn2(conv2(relu(bn1(conv1(x))))) + skip)``; He et al., 2015, figure 5 left.

    Args:
        x: (N, C, H, W). conv1: (K, C, 3, 3), with ``stride``. conv2: (K, K, 3, 3).
        downsample: (K, C, 1, 1), with ``stride``; absent means the identity, and then C = K, stride 1.
        training: batch statistics, and running ones updated; else frozen.
        composition: the caller's wish; ``with fusedres.composition(...)`` beats it.
        plan: what to run where composition or back-end is ``auto``: what a plan chose.

    Returns:
        (N, K, P, Q), channels_last, in ``x``'s dtype (autocast's under autocast).

    Raises:
        ValueError, TypeError: an argument that does not fit, named with the rule and what was given.
    """
    step = _checks.geometry("basic_block", stride, 1, 1, 1).stride
    geometries = [Geometry(step, (1, 1)), Geometry(padding=(1, 1))]
    return run_block(
        _OP, x, [conv1, conv2], geometries, downsample, Geometry(step), None,
        relu=True, training=training, composition=composition, plan=plan,
    )  # fmt: skip
