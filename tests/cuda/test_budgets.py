"""What the emulator counts of each op around a convolution, held to what it must do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cuda.conftest import Emulator

pytestmark = pytest.mark.emulated

#: Bytes that reach DRAM, over those that must be moved once; sums' partials are in it.
MOST_DRAM = 1.01
#: Bytes asked for, over those of the 32-byte sectors that carried them.
LEAST_SECTORS_USED = 0.95


def test_bytes(emulator: Emulator, tmp_path: Path) -> None:
    log = tmp_path / "counters"
    output = emulator.program("tests.cuda._budget_program", counters=log, timeout=1800)
    from ptxemu import read_log

    records = iter(read_log(log))
    ops = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    launches = {op["op"]: [next(records) for _ in range(op["launches"])] for op in ops}
    assert next(records, None) is None and len(ops) == 8
    for op in ops:
        counters = [record.counters for record in launches[op["op"]]]
        moved = sum(c["dram_read_bytes"] + c["dram_write_bytes"] for c in counters)
        must = op["read"] + op["written"]
        assert moved <= MOST_DRAM * must, f"{op['op']}: {moved} bytes reach DRAM, {must} must"
        for kind in ("ld", "st"):
            asked = sum(c[f"{kind}_global_bytes"] for c in counters)
            carried = 32 * sum(c[f"{kind}_global_sectors"] for c in counters)
            assert asked >= LEAST_SECTORS_USED * carried, f"{op['op']} {kind}: {asked} bytes in {carried}"
