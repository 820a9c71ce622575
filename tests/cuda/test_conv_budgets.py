"""What the emulator counts of ResNet-50's convolutions, forward and gradient, held to what they must do."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.cuda.conftest import Emulator

pytestmark = pytest.mark.emulated

#: Bytes that reach DRAM, over those that must be moved once.
MOST_DRAM = {1: 1.03, 3: 1.10, 7: 1.10}
#: Passes over the banks for each 8 × 8 matrix of an ldmatrix: 1 without conflicts.
MOST_WAVEFRONTS = 1.05
#: Bytes asked for, over those of the 32-byte sectors that carried them.
LEAST_SECTORS_USED = 0.95
#: Multiply-adds of one mma.m16n8k16, and the reduction's step in which every kernel works.
MMA_MACS, DEPTH = 16 * 8 * 16, 32

#: A device with so few processors is full of the largest tiles at a small batch.
PROCESSORS = 2


class Case(NamedTuple):
    """A call, and the launch of its convolution among its launches."""

    facts: dict[str, Any]
    kernel: str
    counters: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.facts['op']} {self.facts['layer']} ({self.kernel[:60]})"

    @property
    def tile(self) -> tuple[int, int]:
        found = re.search(r"TileILi(\d+)ELi(\d+)E", self.kernel)
        assert found, self.kernel
        return int(found[1]), int(found[2])


def cases(emulator: Emulator, log: Path, pattern: str) -> list[Case]:
    output = emulator.program(
        "tests.cuda._conv_budget_program", pattern, counters=log, processors=PROCESSORS, timeout=3600
    )
    from ptxemu import read_log

    calls = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    launches = [r for r in read_log(log) if "conv_gemm_kernel" in r.kernel or "conv_patch_kernel" in r.kernel]
    assert calls and len(calls) == len(launches)
    return [Case(c, r.kernel, r.counters) for c, r in zip(calls, launches, strict=True)]


def padded(value: int, to: int) -> int:
    return -(-value // to) * to


def ideal_mmas(case: Case) -> int:
    """Of tiles that cover the result, and a reduction in whole steps."""
    m, n = case.tile
    columns = padded(case.facts["columns"], n)
    return sum(
        padded(pixels, m) * columns * taps * padded(depth, DEPTH) // MMA_MACS
        for pixels, taps, depth in case.facts["products"]
    )


def check(case: Case) -> None:
    counters, facts = case.counters, case.facts
    assert counters["mma"] == ideal_mmas(case), f"{case}: {counters['mma']} mma, {ideal_mmas(case)} needed"
    waves = counters["ldmatrix_waves_per_request"]
    assert waves <= MOST_WAVEFRONTS, f"{case}: {waves:.2f} wavefronts a matrix"
    moved = counters["dram_read_bytes"] + counters["dram_write_bytes"]
    must = facts["read"] + facts["written"]
    assert moved <= MOST_DRAM[facts["kernel_size"]] * must, f"{case}: {moved} bytes reach DRAM, {must} must"
    for kind in ("ld", "st"):
        asked, carried = counters[f"{kind}_global_bytes"], 32 * counters[f"{kind}_global_sectors"]
        assert asked >= LEAST_SECTORS_USED * carried, f"{case} {kind}: {asked} bytes in {carried}"


def test_usual_convolutions(emulator: Emulator, tmp_path: Path) -> None:
    """A bottleneck's: 1×1 narrowing and widening, and a 3×3."""
    found = cases(emulator, tmp_path / "counters", "layer2.1.*")
    assert {"conv_patch" in case.kernel for case in found} == {True, False}
    for case in found:
        check(case)


@pytest.mark.slow
def test_every_convolution(emulator: Emulator, tmp_path: Path) -> None:
    for case in cases(emulator, tmp_path / "counters", "*"):
        if case.facts["layer"] != "conv1":  # the stem's 3 channels are gathered value by value
            check(case)
