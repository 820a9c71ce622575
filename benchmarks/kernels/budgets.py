"""What a convolution's counters are held to, and where they are known to miss it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.kernels.chips import CHIPS, Chip
from benchmarks.kernels.layers import Case, ideal_products
from benchmarks.kernels.time_model import LEAST_SLACK

#: Bytes that reach DRAM, over those that must be moved once, by the size of the filter.
MOST_DRAM = {1: 1.03, 3: 1.10, 7: 1.10}
#: Passes over the banks for each 8 × 8 matrix of an ldmatrix: 1 without conflicts.
MOST_WAVEFRONTS = 1.05
#: Bytes asked for, over those of the 32-byte sectors that carried them.
LEAST_SECTORS_USED = 0.95
#: Instructions of a forward main loop for each of its matrix instructions; a good library kernel has 3.1.
MOST_INSTRUCTIONS = 3.5
#: The batch that the time model is held to.
IMAGES = 32


class Finding(NamedTuple):
    """One case against one budget: ``value`` must be at most ``limit``, where ``least``, at least."""

    budget: str
    case: str
    value: float
    limit: float
    least: bool = False

    @property
    def met(self) -> bool:
        return self.value >= self.limit if self.least else self.value <= self.limit


def counted(case: Case) -> list[Finding]:
    """The counters' budgets."""
    c, name = case.counters, str(case)
    moved = case.dram / case.must_dram
    findings = [Finding("DRAM bytes / must move", name, moved, MOST_DRAM[case.layer.kernel])]
    products = c["mma"] / ideal_products(case)
    findings.append(Finding("matrix instructions / padded ideal", name, products, 1.0))
    if c["ldmatrix_requests"]:
        waves = c["ldmatrix_wavefronts"] / c["ldmatrix_requests"]
        findings.append(Finding("wavefronts a matrix", name, waves, MOST_WAVEFRONTS))
    for kind, word in (("ld", "read"), ("st", "written")):
        used = min(1.0, c[f"{kind}_global_bytes"] / (32 * max(c[f"{kind}_global_sectors"], 1)))
        findings.append(Finding(f"sectors used, {word}", name, used, LEAST_SECTORS_USED, least=True))
    return findings


def modelled(case: Case, chip: Chip, images: int = IMAGES) -> Finding:
    """That DRAM or the tensor cores limit it, and nothing else comes near."""
    other, share = case.times(chip, images).worst_other
    return Finding(f"{other}, {chip.name}", str(case), share, LEAST_SLACK)


def findings(cases: Sequence[Case]) -> list[Finding]:
    """Every budget of every case."""
    found = [finding for case in cases for finding in counted(case)]
    return found + [modelled(case, chip) for chip in CHIPS for case in cases]
