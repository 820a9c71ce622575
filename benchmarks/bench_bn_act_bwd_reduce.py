"""``bn_act_bwd_reduce``: ReLU's mask and BatchNorm's sums, of an inner activation and of a join."""

from __future__ import annotations

from benchmarks.conftest import Maker, Versus
from benchmarks.merge import added
from benchmarks.shapes import Layer


def bench_bn_act_bwd_reduce(layer: Layer, batch: int, make: Maker, versus_plain: Versus) -> None:
    dout, y = (make.activation(*layer.out_shape(batch)) for _ in range(2))
    affine = make.affine(layer.filters)
    versus_plain("bn_act_bwd_reduce", dout, None, y, *affine, *make.statistics(y), comparable=added)


def bench_bn_act_bwd_reduce_join(layer: Layer, batch: int, make: Maker, versus_plain: Versus) -> None:
    dout, out, y = (make.activation(*layer.out_shape(batch)) for _ in range(3))
    versus_plain("bn_act_bwd_reduce", dout, out.relu(), y, None, None, *make.statistics(y), comparable=added)
