"""Each distinct convolution of ResNet-50 in each use: its counters, and what they are held to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from ptxemu.counters import decode

from benchmarks.kernels.chips import Chip
from benchmarks.kernels.device import A100
from benchmarks.kernels.facts import Assembled, Facts, Library, Note
from benchmarks.kernels.time_model import COUNTED, Times, times
from benchmarks.shapes import LAYERS, Layer

#: Multiply-adds of one mma.m16n8k16; channels of a step of the library's reduction.
MMA_MACS, DEPTH = 16 * 8 * 16, 32
#: The library's weight gradient: rows of a matrix instruction, columns of the narrowest tile, pixels of a
#: step, two instructions deep.
WGRAD_TILE = (16, 64, 32)
#: Kernels that multiply; the last two are Triton's.
PRODUCTS = (
    "conv_gemm_kernel", "conv_patch_kernel", "conv_wgrad_kernel", "conv_wgrad_ring", "conv_wgrad_any",
    "conv_kernel", "wgrad_kernel",
)  # fmt: skip
_LAYERS = {layer.name: layer for layer in LAYERS}


class Case(NamedTuple):
    """A call and its main launch, which multiplies.

    ``listed_splits`` are the parts of a weight gradient's pixels at the model's batch on a real device's
    processors; of other uses 1. ``triton`` is the kernel where Triton compiled it.
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
    triton: Assembled | None

    def __str__(self) -> str:
        return f"{self.layer.name} {self.use}"

    @property
    def is_wgrad(self) -> bool:
        return self.use.startswith("wgrad")

    @property
    def is_forward(self) -> bool:
        return self.use.startswith(("infer", "stats"))

    @property
    def tile(self) -> tuple[int, int, int]:
        """Rows and columns of the result that a block computes, and how much of the reduction at a time."""
        if self.triton is not None:
            tile = self.triton.note.tile
        elif self.is_wgrad:
            tile = WGRAD_TILE
        else:  # as the compiler spells them
            found = re.search(r"TileILi(\d+)ELi(\d+)E", self.kernel)
            tile = (int(found[1]), int(found[2]), DEPTH) if found else None
        if tile is None:
            raise ValueError(f"no tile in the name of {self.kernel}")
        return tile

    def facts(self, library: Library) -> Facts:
        """What the compiler made of the kernel."""
        return library.facts(self.kernel, self.shared) if self.triton is None else self.triton.facts

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
        counters, triton = decode(main["raw"]), _assembled(call, main)
        if triton is None:
            counters["issue_slots"] = library.issued(main["kernel"], counters)
        else:
            counters["issue_slots"] = triton.issued(counters)
        parts = main["grid"][2] if use.startswith("wgrad") else 1
        found.append(
            Case(
                _LAYERS[layer], use, call["batch"], main["kernel"], call["must_move"], counters,
                parts, splits.get((layer, use), parts), main["smem"], call["backend"],
                triton,
            )
        )  # fmt: skip
    return found


def _main(call: dict[str, Any]) -> dict[str, Any]:
    """Of a call's launches the one that multiplies."""
    (launch,) = [x for x in call["launches"] if any(name in x["kernel"] for name in PRODUCTS)]
    return dict(launch)


def _assembled(call: dict[str, Any], main: dict[str, Any]) -> Assembled | None:
    """The kernel of the main launch, if Triton compiled it; None of a kernel of the library.

    Raises:
        RuntimeError: Triton did not tell of every launch.
    """
    if call["backend"] != "triton":
        return None
    if len(call["compiled"]) != len(call["launches"]):
        raise RuntimeError(f"{call['layer']} {call['use']}: Triton did not tell of every launch")
    return Assembled(Note(**call["compiled"][call["launches"].index(main)]), A100)


def padded(value: int, to: int) -> int:
    return -(-value // to) * to


def ideal_products(case: Case) -> int:
    """Matrix instructions of tiles that cover the result, and of a reduction in whole steps."""
    m, n, step = case.tile
    layer = case.layer
    if case.is_wgrad:
        rows, columns = padded(layer.filters, m), padded(layer.channels * layer.kernel**2, n)
        return rows * columns * padded(case.batch * layer.out_size**2, step) // MMA_MACS
    gradient = case.use.startswith("dgrad")
    columns = padded(layer.channels if gradient else layer.filters, n)
    return sum(
        padded(pixels, m) * columns * taps * padded(depth, step) // MMA_MACS
        for pixels, taps, depth in products(layer, case.batch, gradient)
    )


def products(layer: Layer, batch: int, gradient: bool) -> list[tuple[int, int, int]]:
    """(pixels, taps, reduction): a strided gradient has stride² classes.

    The stem's channels are reduced with a row of taps at a time.
    """
    pixels = batch * layer.out_size**2
    if not gradient:
        if layer.channels * layer.kernel < DEPTH:
            return [(pixels, layer.kernel, layer.channels * layer.kernel)]
        return [(pixels, layer.kernel**2, layer.channels)]
    if layer.stride == 1:
        return [(pixels, layer.kernel**2, layer.filters)]
    of_axis = [2, 1] if layer.kernel == 3 else [1, 0]  # taps that reach an odd pixel and an even one
    return [(pixels, a * b, layer.filters) for a in of_axis for b in of_axis]
