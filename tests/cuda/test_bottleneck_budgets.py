"""What the emulator counts of whole bottlenecks in one launch, held to what they must do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cuda.conftest import Emulator

pytestmark = pytest.mark.emulated

MOST_DRAM = 1.01
LEAST_SECTORS_USED = 0.95
#: Passes over the banks, over those without conflicts: 1 a matrix of ldmatrix, 4 a 16-byte store.
MOST_WAVEFRONTS = 1.05


@pytest.mark.slow
@pytest.mark.parametrize("sm", [80, 90], ids=["163KB", "227KB"])
def test_counters(sm: int, emulator: Emulator, tmp_path: Path) -> None:
    log = tmp_path / "counters"
    output = emulator.program("tests.cuda._bottleneck_budget_program", counters=log, sm=sm, timeout=3600)
    from ptxemu import read_log

    blocks = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    records = read_log(log)
    assert len(blocks) == len(records) == 3, "one launch a block"
    for block, record in zip(blocks, records, strict=True):
        c = record.counters
        assert "bottleneck_infer" in record.kernel
        assert c["mma"] == block["mma"], block
        assert c["dram_read_bytes"] <= MOST_DRAM * block["read"], block
        assert c["dram_write_bytes"] == block["written"], block
        assert min(c["ld_coalescing"], c["st_coalescing"]) >= LEAST_SECTORS_USED, block
        waves = c["ldmatrix_wavefronts"] + c["st_shared_wavefronts"]
        assert waves <= MOST_WAVEFRONTS * (c["ldmatrix_requests"] + 4 * c["st_shared_requests"]), block
