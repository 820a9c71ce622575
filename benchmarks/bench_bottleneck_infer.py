"""``bottleneck_infer``: a whole residual block of inference."""

from __future__ import annotations

from torch import Tensor

from benchmarks.conftest import Maker, Versus
from benchmarks.shapes import Block


def bench_bottleneck_infer(block: Block, batch: int, make: Maker, versus_plain: Versus) -> None:
    arguments: list[Tensor] = []
    for conv in block.convs:
        arguments += [make.weight(*conv.w_shape), *make.affine(conv.filters)]
    x = make.activation(*block.convs[0].in_shape(batch))
    flops = sum(conv.flops(batch) for conv in block.convs)
    versus_plain("bottleneck_infer", x, *arguments, flops=flops, stride=block.stride)
