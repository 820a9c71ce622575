"""Each distinct convolution of ResNet-50 in each use: its counters, and what they are held to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from ptxemu.counters import decode

from benchmarks.kernels.chips import Chip
from benchmarks.kernels.facts import Library
from benchmarks.kernels.time_model import COUNTED, Times, times
from benchmarks.shapes import LAYERS, Layer

#: Multiply-adds of one mma.m16n8k16; channels of a step of the reduction.
MMA_MACS, DEPTH = 16 * 8 * 16, 32
#: Of a weight gradient: pixels of a step, two instructions deep; columns of the narrowest tile.
STAGE_PIXELS, WGRAD_COLUMNS = 32, 64
#: Kernels that multiply; the last two are Triton's.
PRODUCTS = (
    "conv_gemm_kernel", "conv_patch_kernel", "conv_wgrad_kernel", "conv_wgrad_ring", "conv_wgrad_any",
    "conv_kernel", "wgrad_kernel",
)  # fmt: skip
_LAYERS = {layer.name: layer for layer in LAYERS}


class Case(NamedTuple):
    """A call and its main launch, which multiplies.

    ``listed_splits`` are the parts of a weight gradient's pixels at the model's batch on a real device's
    processors; of other uses 1.
    """

    layer: Layer
    use: str
    batch: int
    kernel: str
    must_move: int
    counters: dict[str, Any]
    splits: int
    listed_splits: int
    shared: int
    backend: str
    compiled: dict[str, int] | None

    def __str__(self) -> str:
        return f"{self.layer.name} {self.use}"

    @property
    def is_wgrad(self) -> bool:
        return self.use.startswith("wgrad")

    @property
    def is_forward(self) -> bool:
        return self.use.startswith(("infer", "stats"))

    @property
    def tile(self) -> tuple[int, int]:
        """Rows and columns of the result that a block computes, as the compiler spells them."""
        found = re.search(r"TileILi(\d+)ELi(\d+)E", self.kernel)
        if found is None:
            raise ValueError(f"no tile in the name of {self.kernel}")
        return int(found[1]), int(found[2])

    @property
    def weight_bytes(self) -> int:
        k, c, r, s = self.layer.w_shape
        return 2 * k * c * r * s

    @property
    def dram(self) -> float:
        """Bytes of the call's main launch; of a weight gradient, of both its operands' reading alone."""
        written = 0 if self.is_wgrad else self.counters["dram_write_bytes"]
        return float(self.counters["dram_read_bytes"] + written)

    @property
    def must_dram(self) -> float:
        return self.must_move - (self.weight_bytes if self.is_wgrad else 0)

    def at(self, images: int) -> dict[str, float]:
        """The main launch's counters for more images; weights, and a split's parts, do not grow with them."""
        more = images / self.batch
        grown = {name: self.counters[name] * more for name in COUNTED}
        read, written = self.counters["dram_read_bytes"], self.counters["dram_write_bytes"]
        if self.is_wgrad:
            grown["dram_write_bytes"] = written * self.listed_splits / self.splits
        else:
            grown["dram_read_bytes"] = self.weight_bytes + (read - self.weight_bytes) * more
        return grown

    def times(self, chip: Chip, images: int) -> Times:
        return times(self.at(images), chip)


def cases(calls: Sequence[dict[str, Any]], listed: Sequence[dict[str, Any]], library: Library) -> list[Case]:
    """A case a call; ``listed`` are the weight gradients among them at a large batch."""
    splits = {(call["layer"], call["use"]): _main(call)["grid"][2] for call in listed}
    found = []
    for call in calls:
        main, (layer, use) = _main(call), (call["layer"], call["use"])
        counters = decode(main["raw"])
        counters["issue_slots"] = library.issued(main["kernel"], counters)
        parts = main["grid"][2] if use.startswith("wgrad") else 1
        found.append(
            Case(
                _LAYERS[layer], use, call["batch"], main["kernel"], call["must_move"], counters,
                parts, splits.get((layer, use), parts), main["smem"], call["backend"],
                _compiled(call, main),
            )
        )  # fmt: skip
    return found


def _main(call: dict[str, Any]) -> dict[str, Any]:
    """Of a call's launches the one that multiplies."""
    (launch,) = [x for x in call["launches"] if any(name in x["kernel"] for name in PRODUCTS)]
    return dict(launch)


def _compiled(call: dict[str, Any], main: dict[str, Any]) -> dict[str, int] | None:
    """What Triton's compiler gave the launch; None of a kernel of the library."""
    notes: list[dict[str, int]] = call.get("compiled", [])
    return notes[call["launches"].index(main)] if len(notes) == len(call["launches"]) else None


def padded(value: int, to: int) -> int:
    return -(-value // to) * to


def ideal_products(case: Case) -> int:
    """Matrix instructions of tiles that cover the result, and of a reduction in whole steps."""
    if case.is_wgrad:
        stages = -(-case.batch * case.layer.out_size**2 // STAGE_PIXELS)
        columns = padded(case.layer.channels * case.layer.kernel**2, WGRAD_COLUMNS)
        return case.layer.filters * columns // (16 * 8) * 2 * stages
    m, n = case.tile
    gradient = case.use.startswith("dgrad")
    columns = padded(case.layer.channels if gradient else case.layer.filters, n)
    return sum(
        padded(pixels, m) * columns * taps * padded(depth, DEPTH) // MMA_MACS
        for pixels, taps, depth in products(case.layer, case.batch, gradient)
    )


def products(layer: Layer, batch: int, gradient: bool) -> list[tuple[int, int, int]]:
    """(pixels, taps, reduction): a strided gradient has stride² classes, a row of the stem is one tap."""
    pixels = batch * layer.out_size**2
    if not gradient:
        if layer.channels * layer.kernel < DEPTH:
            return [(pixels, layer.kernel, layer.channels * layer.kernel)]
        return [(pixels, layer.kernel**2, layer.channels)]
    if layer.stride == 1:
        return [(pixels, layer.kernel**2, layer.filters)]
    of_axis = [2, 1] if layer.kernel == 3 else [1, 0]  # taps that reach an odd pixel and an even one
    return [(pixels, a * b, layer.filters) for a in of_axis for b in of_axis]
