"""``conv_dgrad``: the input gradient with BatchNorm's backward on load and the next one's sums on store."""

from __future__ import annotations

from benchmarks.conftest import Maker, Versus
from benchmarks.merge import added
from benchmarks.shapes import Layer


def bench_conv_dgrad(layer: Layer, batch: int, make: Maker, versus_plain: Versus) -> None:
    dz, y = (make.activation(*layer.out_shape(batch)) for _ in range(2))
    prev = make.activation(*layer.in_shape(batch))
    versus_plain(
        "conv_dgrad",
        dz,
        make.weight(*layer.w_shape),
        y,
        *make.gradient_affine(layer.filters),
        None,
        prev,
        *make.affine(layer.channels),
        *make.statistics(prev),
        flops=layer.flops(batch),
        comparable=added,
        x_shape=layer.in_shape(batch),
        **layer.geometry,
    )
