"""``fusedres.conv_bn_act``: convolution, BatchNorm, an optional residual and ReLU, with autograd."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fusedres.ops import _checks
from fusedres.ops._block_op import BlockOp
from fusedres.ops._functional import ConvBN, run_block

_OP = BlockOp("conv_bn_act", [None], downsample=False, residual=True)


def conv_bn_act(
    x: Tensor,
    weight: Tensor,
    bn_weight: Tensor | None = None,
    bn_bias: Tensor | None = None,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    residual: Tensor | None = None,
    *,
    num_batches_tracked: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    training: bool = False,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    act: str = "relu",
) -> Tensor:
    """``act(batch_norm(conv2d(x, weight)) + residual)``, fused, with gradients in both modes.

    In training, or without running statistics, the batch's own are used; in training the running ones
    (and ``num_batches_tracked``) are then updated in place. Else BatchNorm is frozen: an fp32 affine in
    the convolution's epilogue. Under autocast ``x``, ``weight`` and ``residual`` are cast, BatchNorm's
    parameters are not.

    Args:
        x: (N, C, H, W); channels_last is fastest, anything else is converted.
        weight: (K, C / groups, R, S), in ``x``'s dtype.
        bn_weight, bn_bias, running_mean, running_var: (K,), fp32 or ``x``'s dtype.
        residual: (N, K, P, Q), in ``x``'s dtype, added before the activation.
        num_batches_tracked: int64 scalar tensor; needed for ``momentum=None`` (cumulative average).
        stride, padding, dilation: an int or a pair (vertical, horizontal), as ``conv2d`` takes them;
            padding is zeros on both sides.
        groups: divides C and K.
        training: batch statistics, and running ones updated; else frozen.
        momentum: the batch's share in an update of the running statistics.
        eps: added to the variance.
        act: ``"relu"`` or ``"none"``.

    Returns:
        (N, K, P, Q), channels_last, in ``x``'s dtype (autocast's under autocast).

    Raises:
        ValueError, TypeError: an argument that does not fit, named with the rule and what was given.
    """
    if act not in ("relu", "none"):
        raise ValueError(f"conv_bn_act: `act` must be 'relu' or 'none'; got {act!r}")
    geometry = _checks.geometry("conv_bn_act", stride, padding, dilation, groups)
    layer = ConvBN(weight, bn_weight, bn_bias, running_mean, running_var, num_batches_tracked, momentum, eps)
    return run_block(
        _OP,
        x,
        [layer],
        [geometry],
        None,
        None,
        residual,
        relu=act == "relu",
        training=training,
        composition=None,
    )
