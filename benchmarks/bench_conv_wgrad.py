"""``conv_wgrad``: the weight gradient with both operands formed on load."""

from __future__ import annotations

from benchmarks.conftest import Maker, Versus
from benchmarks.shapes import Layer


def bench_conv_wgrad(layer: Layer, batch: int, make: Maker, versus_plain: Versus) -> None:
    x = make.activation(*layer.in_shape(batch))
    dz, y = (make.activation(*layer.out_shape(batch)) for _ in range(2))
    versus_plain(
        "conv_wgrad",
        x,
        dz,
        *make.affine(layer.channels),
        y,
        *make.gradient_affine(layer.filters),
        flops=layer.flops(batch),
        w_shape=layer.w_shape,
        **layer.geometry,
    )
