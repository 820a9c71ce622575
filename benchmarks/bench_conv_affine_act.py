"""``conv_affine_act``: convolution, affine, residual and ReLU of inference, over ResNet-50's layers."""

from __future__ import annotations

from benchmarks.conftest import Maker, Versus
from benchmarks.shapes import Layer


def bench_conv_affine_act(layer: Layer, batch: int, make: Maker, versus_plain: Versus) -> None:
    x, w = make.activation(*layer.in_shape(batch)), make.weight(*layer.w_shape)
    scale, shift = make.affine(layer.filters)
    versus_plain("conv_affine_act", x, w, scale, shift, flops=layer.flops(batch), **layer.geometry)


def bench_conv_affine_act_residual(layer: Layer, batch: int, make: Maker, versus_plain: Versus) -> None:
    x, w = make.activation(*layer.in_shape(batch)), make.weight(*layer.w_shape)
    scale, shift = make.affine(layer.filters)
    residual = make.activation(*layer.out_shape(batch))
    versus_plain("conv_affine_act", x, w, scale, shift, residual, flops=layer.flops(batch), **layer.geometry)
