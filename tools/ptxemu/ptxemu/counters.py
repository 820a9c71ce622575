"""What a launch counted, as a dictionary.

``warp_inst``: executed warp instructions by class (`ptxemu.lower.CLASSES`); ``warp_inst_total`` and
``lane_inst_total`` their sums over warps and over active lanes.  ``ld_global_bytes`` are the bytes the
lanes asked for, ``ld_global_sectors`` the 32-byte sectors that carried them; ``ld_coalescing`` is their
ratio, above 1 where lanes of a warp share bytes.  ``*_shared_wavefronts`` are passes over the banks: 1 per
request of 4-byte accesses without conflicts.  ``dram_read_bytes``/``dram_write_bytes`` are distinct sectors
over the whole launch (``count=2``).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from .lower import CLASSES

Counters = dict[str, Any]

# after the instruction counts of warps and of lanes; the order of ``enum Counter`` of runtime/internal.hpp
NAMES = [
    "ld_global_requests", "ld_global_bytes", "ld_global_sectors",
    "st_global_requests", "st_global_bytes", "st_global_sectors",
    "ld_shared_requests", "ld_shared_wavefronts", "st_shared_requests", "st_shared_wavefronts",
    "ldmatrix_requests", "ldmatrix_wavefronts", "mma", "barriers", "blocks",
    "dram_read_bytes", "dram_write_bytes", "atomic_requests", "ctas", "mma_macs", "tma_bytes",
]  # fmt: skip
RAW_LENGTH = 2 * len(CLASSES) + len(NAMES)
SECTOR_BYTES = 32


def decode(raw: Sequence[int]) -> Counters:
    """The dictionary of a raw counter array, with the ratios derived from it."""
    classes = len(CLASSES)
    counters: Counters = {
        "warp_inst": {name: raw[index] for index, name in enumerate(CLASSES) if raw[index]},
        "warp_inst_total": sum(raw[:classes]),
        "lane_inst_total": sum(raw[classes : 2 * classes]),
    }
    counters.update(zip(NAMES, raw[2 * classes : RAW_LENGTH], strict=True))
    for access in ("ld", "st"):
        moved = counters[f"{access}_global_sectors"] * SECTOR_BYTES
        counters[f"{access}_coalescing"] = _ratio(counters[f"{access}_global_bytes"], moved)
        counters[f"{access}_shared_waves_per_request"] = _ratio(
            counters[f"{access}_shared_wavefronts"], counters[f"{access}_shared_requests"]
        )
    counters["ldmatrix_waves_per_request"] = _ratio(
        counters["ldmatrix_wavefronts"], counters["ldmatrix_requests"]
    )
    return counters


def _ratio(numerator: int, denominator: int) -> float | None:
    return numerator / denominator if denominator else None


class LaunchRecord(NamedTuple):
    """One launch on the stand-in device."""

    kernel: str
    grid: list[int]
    block: list[int]
    dynamic_smem: int
    milliseconds: float
    counters: Counters


def read_log(path: str | PathLike[str]) -> list[LaunchRecord]:
    """The launches that the stand-in device wrote to the file PTXEMU_COUNTERS named."""
    records = []
    for line in Path(path).read_text().splitlines():
        entry = json.loads(line)
        records.append(
            LaunchRecord(
                entry["kernel"],
                entry["grid"],
                entry["block"],
                entry["smem"],
                entry["ms"],
                decode(entry["raw"]),
            )
        )
    return records
