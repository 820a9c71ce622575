"""``bn_finalize``: Chan's merge of as many tiles as our own ``bn_stats`` makes of a layer."""

from __future__ import annotations

from benchmarks.conftest import Maker, Versus
from benchmarks.shapes import Layer
from fusedres import ops


def bench_bn_finalize(layer: Layer, batch: int, make: Maker, versus_plain: Versus) -> None:
    count, mean, m2 = ops.bn_stats(make.activation(*layer.out_shape(batch)))
    gamma, beta = make.affine(layer.filters)
    versus_plain("bn_finalize", count, mean, m2, gamma, beta, 1e-5)
