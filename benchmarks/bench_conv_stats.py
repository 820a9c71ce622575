"""``conv_stats``: convolution with its output's statistics; the second activates its input on load."""

from __future__ import annotations

from benchmarks.conftest import Maker, Versus
from benchmarks.merge import merged
from benchmarks.shapes import Layer


def bench_conv_stats(layer: Layer, batch: int, make: Maker, versus_plain: Versus) -> None:
    x, w = make.activation(*layer.in_shape(batch)), make.weight(*layer.w_shape)
    versus_plain("conv_stats", x, w, flops=layer.flops(batch), comparable=merged, **layer.geometry)


def bench_conv_stats_activated(layer: Layer, batch: int, make: Maker, versus_plain: Versus) -> None:
    x, w = make.activation(*layer.in_shape(batch)), make.weight(*layer.w_shape)
    s, t = make.affine(layer.channels)
    versus_plain("conv_stats", x, w, s, t, flops=layer.flops(batch), comparable=merged, **layer.geometry)
