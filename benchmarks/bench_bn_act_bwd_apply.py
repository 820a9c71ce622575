"""``bn_act_bwd_apply``: BatchNorm's input gradient where it is written out."""

from __future__ import annotations

from benchmarks.conftest import Maker, Versus
from benchmarks.shapes import Layer


def bench_bn_act_bwd_apply(layer: Layer, batch: int, make: Maker, versus_plain: Versus) -> None:
    dz, y = (make.activation(*layer.out_shape(batch)) for _ in range(2))
    versus_plain("bn_act_bwd_apply", dz, y, *make.gradient_affine(layer.filters))
