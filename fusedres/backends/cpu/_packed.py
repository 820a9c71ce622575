"""Convolution weights with BatchNorm's scale folded in, in the layout oneDNN wants, kept between calls.

oneDNN's fused convolution takes a bias but no scale. The scale is folded from fp32 and rounded once to
the weight's dtype, which costs about what rounding the convolution's output would: within the 2x rule.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fusedres.ops._caches import DerivedCache

#: Layouts of one weight kept at a time, one for each input size: training and validation crops, say.
_SIZES_KEPT = 4

_PACKED: DerivedCache[Tensor] = DerivedCache(_SIZES_KEPT)
_BIASES: DerivedCache[Tensor] = DerivedCache(1)


def packed_weight(
    w: Tensor,
    scale: Tensor | None,
    x_shape: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """``w * scale`` (K, C / groups, R, S) in oneDNN's layout for this geometry and input size."""
    size = tuple(x_shape)
    variant = (size, tuple(stride), tuple(padding), tuple(dilation), groups, scale is None)

    def pack() -> Tensor:
        folded = w.detach()
        if scale is not None:
            folded = (folded.float() * scale.detach().float()[:, None, None, None]).to(w.dtype)
        packed: Tensor = torch.ops.aten.mkldnn_reorder_conv2d_weight.default(
            folded.contiguous().to_mkldnn(), padding, stride, dilation, groups, size
        )
        return packed

    return _PACKED.get(w, (scale,), variant, pack)


def bias_of(shift: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """``shift`` as oneDNN's bias, which it reads as dense values of ``dtype``: itself where it is that."""
    if shift is None or (shift.dtype == dtype and shift.is_contiguous()):
        return shift
    return _BIASES.get(shift, (), dtype, lambda: shift.detach().to(dtype).contiguous())
