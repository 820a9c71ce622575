"""Forward and gradient convolutions of ResNet-50's on the stand-in device, with the tiles of a large batch.

Prints a line of JSON a call: what it must move and multiply. Run under ``python -m ptxemu run`` with
``--counters FILE``, on few processors, so that a small batch is laid out like a large one;
test_conv_budgets.py compares.
"""

from __future__ import annotations

import json
import sys
from fnmatch import fnmatch

import ptxemu.torch_mock
import torch
from torch import Tensor

from benchmarks.shapes import LAYERS, Layer
from fusedres import ops

#: Each is given all that it can be.
OPS = ("conv_affine_act", "conv_stats", "conv_dgrad")


def activation(*shape: int) -> Tensor:
    return torch.randn(shape).bfloat16().to("cuda", memory_format=torch.channels_last)


def batch_of(layer: Layer) -> int:
    """One image, and of the small maps as many as make eight tiles of 128 pixels."""
    return -(-1024 // layer.out_size**2)


def vectors(count: int, channels: int) -> list[Tensor]:
    return [torch.rand(channels, device="cuda") for _ in range(count)]


def call(op: str, layer: Layer, x: Tensor, y: Tensor, w: Tensor) -> None:
    if op == "conv_affine_act":
        ops.conv_affine_act(x, w, *vectors(2, layer.filters), y, **layer.geometry, backend="cuda")
    elif op == "conv_stats":
        activated = vectors(2, layer.channels) if layer.channels > 3 else []
        ops.conv_stats(x, w, *activated, **layer.geometry, backend="cuda")
    else:
        p, q, r = vectors(3, layer.filters)
        s, t, mean, invstd = vectors(4, layer.channels)
        ops.conv_dgrad(
            y, w, torch.randn_like(y), p, q, r, x, torch.randn_like(x), s, t, mean, invstd,
            x_shape=x.shape, **layer.geometry, backend="cuda",
        )  # fmt: skip


def must_read(op: str, layer: Layer, x: Tensor, y: Tensor, w: Tensor) -> int:
    """Bytes: operands once; of a strided 1×1's input only the pixels that it touches."""
    pixels = x.numel() // (layer.stride**2 if layer.kernel == 1 else 1)
    values = {
        "conv_affine_act": pixels + y.numel(),
        "conv_stats": pixels,
        "conv_dgrad": 2 * y.numel() + 2 * x.numel(),
    }
    return 2 * (values[op] + w.numel())


def products(op: str, layer: Layer, batch: int) -> list[tuple[int, int, int]]:
    """(pixels, taps, reduction) of the products: a strided gradient's pixels are in stride² classes."""
    taps = layer.kernel**2
    if op != "conv_dgrad":
        return [(batch * layer.out_size**2, taps, layer.channels)]
    if layer.stride == 1:
        return [(batch * layer.size**2, taps, layer.filters)]
    of_axis = [2, 1] if layer.kernel == 3 else [1, 0]  # taps that reach an odd pixel and an even one
    pixels = batch * layer.out_size**2
    return [(pixels, a * b, layer.filters) for a in of_axis for b in of_axis]


def main(pattern: str = "*") -> None:
    ptxemu.torch_mock.install()
    torch.manual_seed(0)
    for layer in LAYERS:
        if not fnmatch(layer.name, pattern):
            continue
        batch = batch_of(layer)
        x, y = activation(*layer.in_shape(batch)), activation(*layer.out_shape(batch))
        w = activation(*layer.w_shape)
        for op in OPS if layer.channels > 3 else OPS[:2]:
            call(op, layer, x, y, w)
            facts = {
                "op": op,
                "layer": layer.name,
                "read": must_read(op, layer, x, y, w),
                "written": 2 * (x if op == "conv_dgrad" else y).numel(),
                "kernel_size": layer.kernel,
                "columns": layer.channels if op == "conv_dgrad" else layer.filters,
                "products": products(op, layer, batch),
            }
            print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
