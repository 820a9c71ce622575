"""A whole bottleneck in inference, as three or four ``conv_affine_act`` launches.

One launch for the block would keep the inner activations on chip; Triton gives no shared memory to keep
a tile with its halo in, so this back-end composes the block instead.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fusedres.backends.triton._library import implements
from fusedres.backends.triton.conv_affine_act import conv_affine_act
from fusedres.ops._shapes import Geometry
from fusedres.ops.bottleneck_infer import middle_geometry


@implements("bottleneck_infer")
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
    wd: Tensor | None,
    sd: Tensor | None,
    td: Tensor | None,
    stride: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    one = Geometry()
    middle = middle_geometry(stride, dilation, groups)
    a1 = conv_affine_act(x, w1, s1, t1, None, True, *one)
    a2 = conv_affine_act(a1, w2, s2, t2, None, True, *middle)
    skip = x if wd is None else conv_affine_act(x, wd, sd, td, None, False, *Geometry(stride=middle.stride))
    out: Tensor = conv_affine_act(a2, w3, s3, t3, skip, True, *one)
    return out
