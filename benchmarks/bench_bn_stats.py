"""``bn_stats``: statistics of a convolution's output that exists already."""

from __future__ import annotations

from benchmarks.conftest import Maker, Versus
from benchmarks.merge import merged
from benchmarks.shapes import Layer


def bench_bn_stats(layer: Layer, batch: int, make: Maker, versus_plain: Versus) -> None:
    versus_plain("bn_stats", make.activation(*layer.out_shape(batch)), comparable=merged)
