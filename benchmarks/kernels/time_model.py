"""From a launch's counters to a time: the longest that one resource of the chip would be busy.

Nothing else is modelled: no latency, no last wave that leaves processors idle, no launch. It is a bound from
below, and says which resource would have to be relieved first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from benchmarks.kernels.chips import ISSUED_A_CYCLE, WAVEFRONTS_A_CYCLE, Chip

SECTOR_BYTES = 32
#: What may limit a convolution; every other resource is to stay under LEAST_SLACK of the limiting one.
GOOD_LIMITS = ("DRAM", "tensor cores")
LEAST_SLACK = 0.9

#: What the model reads: the emulator's counters, and issue slots (:meth:`.facts.Library.issued`).
COUNTED = (
    "dram_read_bytes", "dram_write_bytes", "ld_global_sectors", "st_global_sectors", "mma_macs",
    "ld_shared_wavefronts", "st_shared_wavefronts", "ldmatrix_wavefronts", "issue_slots",
)  # fmt: skip


class Times(NamedTuple):
    """Seconds that each resource is busy."""

    dram: float
    l2: float
    tensor_cores: float
    shared_memory: float
    issue: float

    @property
    def named(self) -> dict[str, float]:
        names = ("DRAM", "L2", "tensor cores", "shared memory", "issue slots")
        return dict(zip(names, self, strict=True))

    @property
    def longest(self) -> float:
        return max(self)

    @property
    def limit(self) -> str:
        """The resource that is busy longest."""
        return max(self.named, key=self.named.__getitem__)

    @property
    def worst_other(self) -> tuple[str, float]:
        """Of resources that must not limit: the busiest, and its share of the busiest good one's time."""
        others = {name: t for name, t in self.named.items() if name not in GOOD_LIMITS}
        name = max(others, key=others.__getitem__)
        return name, others[name] / max(self.named[good] for good in GOOD_LIMITS)


def times(counters: Mapping[str, Any], chip: Chip) -> Times:
    """The busy times of a launch, or of several added up."""
    cycles = chip.processors * chip.clock
    waves = sum(counters[f"{kind}_wavefronts"] for kind in ("ld_shared", "st_shared", "ldmatrix"))
    sectors = counters["ld_global_sectors"] + counters["st_global_sectors"]
    return Times(
        dram=(counters["dram_read_bytes"] + counters["dram_write_bytes"]) / chip.dram,
        l2=SECTOR_BYTES * sectors / chip.l2,
        tensor_cores=counters["mma_macs"] / (chip.macs_a_cycle * cycles),
        shared_memory=waves / (WAVEFRONTS_A_CYCLE * cycles),
        issue=counters["issue_slots"] / (ISSUED_A_CYCLE * cycles),
    )
