"""``bn_bwd_finalize``: parameter gradients and coefficients of a layer's BatchNorm."""

from __future__ import annotations

import torch

from benchmarks.conftest import Maker, Versus
from benchmarks.shapes import Layer


def bench_bn_bwd_finalize(layer: Layer, batch: int, make: Maker, versus_plain: Versus) -> None:
    invstd, mean = make.affine(layer.filters)
    gamma, _ = make.affine(layer.filters)
    sums = torch.stack(make.affine(layer.filters))
    versus_plain("bn_bwd_finalize", sums, gamma, mean, invstd, batch * layer.out_size**2)
