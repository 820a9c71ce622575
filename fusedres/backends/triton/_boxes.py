"""Tiles as boxes of pixels, and the tensor descriptors by which TMA copies them (compute capability 9.0).

A row tile of a convolution is then PN images × PH rows × PW columns of the result, so that each of its taps
is one box of the source. What a box reads outside a tensor is zero, which is the padding.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from fusedres.backends.triton._device import cdiv


class Box(NamedTuple):
    """Images, rows and columns of a tile; zeros where a tile is any run of pixels, read through pointers."""

    PN: int = 0
    PH: int = 0
    PW: int = 0

    def tiles(self, area: tuple[int, int, int]) -> int:
        """How many boxes cover ``area`` (images, rows, columns)."""
        return cdiv(area[0], self.PN) * cdiv(area[1], self.PH) * cdiv(area[2], self.PW)


#: Tiles that boxes may take beyond those that runs of pixels would: an eighth, where copying them by TMA
#: saves a third of the instructions (docs/triton.md).
MOST_WASTE = 1 / 8


@functools.lru_cache(maxsize=1024)
def snug_box(rows: int, area: tuple[int, int, int]) -> Box | None:
    """The box of ``rows`` pixels that covers ``area`` with the fewest tiles, or ``None`` where it wastes too
    many; of equals the one with most pixels of one image, whose taps overlap."""
    sizes = [2**i for i in range(rows.bit_length())]
    boxes = [Box(rows // (h * w), h, w) for h in sizes for w in sizes if h * w <= rows]
    best = min(boxes, key=lambda box: (box.tiles(area), box.PN, abs(box.PH - box.PW)))
    fewest = cdiv(area[0] * area[1] * area[2], rows)
    return best if best.tiles(area) <= (1 + MOST_WASTE) * fewest else None


def map_descriptor(x: Tensor, pixels_in_a_row: bool) -> TensorDescriptor:
    """``x`` (N, C, H, W), channels_last, as boxes read it; a 1×1 takes all its pixels for one row."""
    n, c, h, w = x.shape
    sizes = [1, 1, n * h * w, c] if pixels_in_a_row else [n, h, w, c]
    return TensorDescriptor(x, sizes, [sizes[1] * sizes[2] * c, sizes[2] * c, c, 1], [1] * 4)


def weight_descriptor(w: Tensor) -> TensorDescriptor:
    """``w`` (K, C, R, S), channels_last, as filters × taps × channels."""
    k, c, r, s = w.shape
    return TensorDescriptor(w, [k, r * s, c], [r * s * c, c, 1], [1] * 3)


def shape_blocks(arguments: dict[str, Any]) -> None:
    """Give the descriptors among ``conv_kernel``'s arguments the blocks of the tile that it will run."""
    box = [arguments[name] for name in ("PN", "PH", "PW", "BK")]
    for name in ("src", "other"):
        if arguments[name] is not None:
            arguments[name].block_shape = box
    sides = ("BK", "BN") if arguments["DGRAD"] else ("BN", "BK")
    arguments["w"].block_shape = [arguments[sides[0]], 1, arguments[sides[1]]]
