"""``affine_act_maxpool`` and its backward: the stem behind its convolution."""

from __future__ import annotations

from benchmarks.conftest import Maker, Versus
from benchmarks.merge import added
from benchmarks.shapes import Layer
from fusedres import ops


def bench_affine_act_maxpool(stem: Layer, batch: int, make: Maker, versus_plain: Versus) -> None:
    y = make.activation(*stem.out_shape(batch))
    versus_plain("affine_act_maxpool", y, *make.affine(stem.filters))


def bench_affine_act_maxpool_bwd(stem: Layer, batch: int, make: Maker, versus_plain: Versus) -> None:
    y = make.activation(*stem.out_shape(batch))
    s, t = make.affine(stem.filters)
    out, index = ops.affine_act_maxpool(y, s, t)
    dout = make.activation(*out.shape)
    versus_plain("affine_act_maxpool_bwd", dout, index, y, s, t, *make.statistics(y), comparable=added)
