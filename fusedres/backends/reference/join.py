"""The join of a residual block."""

from __future__ import annotations

from torch import Tensor

from fusedres.backends.reference._library import implements
from fusedres.backends.reference._maths import affine, rounded, wide


@implements("affine_add_act")
def affine_add_act(
    a: Tensor, sa: Tensor, ta: Tensor, b: Tensor | None, sb: Tensor | None, tb: Tensor | None, relu: bool
) -> Tensor:
    out = affine(wide(a), sa, ta)
    if b is not None:
        out = out + affine(wide(b), sb, tb)
    return rounded(out.relu() if relu else out, a.dtype)
