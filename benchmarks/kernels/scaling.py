"""From launches of one and two images to those of a large batch.

One image is executed on a device of two processors, where it is laid out like a large batch. Counters of a
convolution grow with its grid, whose size at the large batch the stand-in device lists without executing;
those of other kernels with the images. Bytes of DRAM are a straight line through one and two images, of which
weights are the constant part; what each tile writes beside the result, and each part of a split reduction,
grows with the grid.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ptxemu.counters import Counters, decode

from benchmarks.kernels.time_model import COUNTED

Call = dict[str, Any]
CONVOLUTIONS = (
    "conv_gemm_kernel",
    "conv_patch_kernel",
    "conv_wgrad_kernel",
    "conv_wgrad_ring",
    "conv_wgrad_any",
)
READS_PARTS = ("bn_finalize", "bn_bwd_finalize", "conv_wgrad_reduce")


def name_of(kernel: str) -> str:
    """A kernel's own name, from its mangled one."""
    found = re.search(r"\d([a-z][a-z_]*_kernel)", kernel)
    return found[1] if found else kernel


class Launch(NamedTuple):
    """One launch at the large batch. Counters are numbers of what happens in all of it, not whole ones."""

    op: str
    kernel: str
    counters: dict[str, float]
    must_move: float

    @property
    def dram(self) -> float:
        return self.counters["dram_read_bytes"] + self.counters["dram_write_bytes"]


def line(at_one: float, at_two: float, images: int) -> float:
    return at_one + (images - 1) * (at_two - at_one)


def blocks(launch: dict[str, Any]) -> int:
    x, y, z = launch["grid"]
    return int(x * y * z)


class Scaling:
    """``one`` and ``two`` are the calls of one and two images, ``listed`` those of ``images``.

    Without ``listed``, where torch's own convolutions would run in full, everything is a straight line.
    ``issued`` gives the issue slots of a kernel's counters.
    """

    def __init__(
        self,
        one: Sequence[Call],
        two: Sequence[Call],
        listed: Sequence[Call] | None,
        images: int,
        issued: Callable[[str, Counters], float],
    ) -> None:
        self.issued = issued
        self.images = images
        self.growth = float(images)  # of the tiles of the last convolution: what reads its parts grows so
        self.launches: list[Launch] = []
        self.aten = _aten(listed) if listed else _aten_line(one, two, images)
        sides = [_ours(calls) for calls in (one, two, listed or one)]
        if len({tuple(call["op"] for call in calls) for calls in sides}) != 1:
            raise ValueError("the batches run different ops")
        for first, second, last in zip(*sides, strict=True):
            must_move = line(first["must_move"], second["must_move"], images)
            for i, launch in enumerate(first["launches"]):
                launches = (launch, second["launches"][i], last["launches"][i])
                self._add(first, launches, must_move if i == 0 else 0.0)

    def _add(self, call: Call, launches: tuple[dict[str, Any], ...], must_move: float) -> None:
        first, second, last = launches
        at_one, at_two = decode(first["raw"]), decode(second["raw"])
        kernel = first["kernel"]
        at_one["issue_slots"] = self.issued(kernel, at_one)
        convolution = any(name in kernel for name in CONVOLUTIONS)
        if convolution:
            same = first["kernel"] == last["kernel"]
            self.growth = blocks(last) / blocks(first) if same else float(self.images)
        grows = self.growth if convolution and "wgrad" not in kernel else float(self.images)
        counters = {name: at_one[name] * grows for name in COUNTED}
        for name in ("dram_read_bytes", "dram_write_bytes"):
            counters[name] = line(at_one[name], at_two[name], self.images)
        if any(name in kernel for name in READS_PARTS):
            counters["dram_read_bytes"] = at_one["dram_read_bytes"] * self.growth
        elif "conv_wgrad" in kernel:
            counters["dram_write_bytes"] = at_one["dram_write_bytes"] * last["grid"][2] / first["grid"][2]
        elif convolution:
            beside = at_one["dram_write_bytes"] - call["result"]
            counters["dram_write_bytes"] = call["result"] * self.images + beside * self.growth
        self.launches.append(Launch(call["op"], kernel, counters, must_move))


def _ours(calls: Sequence[Call]) -> list[Call]:
    return [call for call in calls if call["launches"]]


def _aten(calls: Sequence[Call]) -> dict[str, tuple[int, float]]:
    """Torch's own ops by name: how many, and the bytes that they must move."""
    found: dict[str, tuple[int, float]] = {}
    for call in calls:
        if not call["launches"]:
            count, moved = found.get(call["op"], (0, 0.0))
            found[call["op"]] = count + 1, moved + call["must_move"]
    return found


def _aten_line(one: Sequence[Call], two: Sequence[Call], images: int) -> dict[str, tuple[int, float]]:
    second = _aten(two)
    return {
        op: (count, line(moved, second.get(op, (0, 0.0))[1], images))
        for op, (count, moved) in _aten(one).items()
    }
