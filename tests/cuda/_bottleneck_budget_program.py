"""bottleneck_infer on the stand-in device, a tile or a few of ResNet-50's blocks.

Prints a line of JSON a call: the bytes that must move, and the matrix instructions of its tiles. Run under
``python -m ptxemu run --counters FILE``; test_bottleneck_budgets.py compares.
"""

from __future__ import annotations

import json
from typing import NamedTuple

import ptxemu.torch_mock
import torch
from torch import Tensor

from fusedres import ops


class Block(NamedTuple):
    name: str
    channels: int
    middle: int
    outputs: int
    size: int
    downsample: bool


BLOCKS = (
    Block("layer1.0", 64, 64, 256, 28, True),
    Block("layer1.1", 256, 64, 256, 28, False),
    Block("layer2.1", 512, 128, 512, 14, False),
)

#: Rows of 16 pixels that a matrix instruction takes: of the tile with its border, and of the tile.
HALO_ROWS, TILE_ROWS, TILE = 16, 14, 14


def weight(outputs: int, channels: int, taps: int) -> Tensor:
    w = torch.randn(outputs, channels, taps, taps).bfloat16()
    return w.to("cuda", memory_format=torch.channels_last)


def affine(channels: int) -> tuple[Tensor, Tensor]:
    return torch.rand(channels, device="cuda"), torch.rand(channels, device="cuda")


def run(block: Block) -> None:
    _, c, m, k, size, downsample = block
    x = torch.randn(1, c, size, size).bfloat16().to("cuda", memory_format=torch.channels_last)
    convs = [weight(m, c, 1), *affine(m), weight(m, m, 3), *affine(m), weight(k, m, 1), *affine(k)]
    if downsample:
        convs += [weight(k, c, 1), *affine(k)]
    out = ops.bottleneck_infer(x, *convs, backend="cuda")
    on_tile = 9 * m * m + k * m + (k * c if downsample else 0)
    counts = {
        "read": sum(t.numel() * t.element_size() for t in (x, *convs)),
        "written": out.numel() * out.element_size(),
        "mma": (size // TILE) ** 2 * (HALO_ROWS * c * m + TILE_ROWS * on_tile) // (8 * 16),
    }
    print(json.dumps({"block": block.name, **counts}), flush=True)


def main() -> None:
    ptxemu.torch_mock.install()
    torch.manual_seed(0)
    for block in BLOCKS:
        run(block)


if __name__ == "__main__":
    main()
