"""``affine_add_act``: the join of a block, with the identity and with a downsample's branch."""

from __future__ import annotations

from benchmarks.conftest import Maker, Versus
from benchmarks.shapes import Layer


def bench_affine_add_act(layer: Layer, batch: int, make: Maker, versus_plain: Versus) -> None:
    a, b = (make.activation(*layer.out_shape(batch)) for _ in range(2))
    versus_plain("affine_add_act", a, *make.affine(layer.filters), b)


def bench_affine_add_act_downsample(layer: Layer, batch: int, make: Maker, versus_plain: Versus) -> None:
    a, b = (make.activation(*layer.out_shape(batch)) for _ in range(2))
    versus_plain("affine_add_act", a, *make.affine(layer.filters), b, *make.affine(layer.filters))
