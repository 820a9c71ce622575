"""What the emulator counts of conv_wgrad on ResNet-50's kinds of convolutions, held to what it must do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cuda.conftest import Emulator

pytestmark = pytest.mark.emulated

#: Bytes read from DRAM, over the operands once. The maps are small, and the channel
#: vectors are up to 2.5% beside them.
MOST_DRAM = 1.03
LEAST_SECTORS_USED = 0.95
#: Passes over the banks, over those without conflicts: 1 a matrix of ldmatrix, at most 4 a 16-byte access.
MOST_WAVEFRONTS = 1.05
#: A matrix instruction's values of the result, and the pixels of a stage, which is two of them deep.
VALUES_A_MMA, STAGE_PIXELS = 16 * 8, 32


@pytest.mark.slow
def test_counters(emulator: Emulator, tmp_path: Path) -> None:
    log = tmp_path / "counters"
    output = emulator.program("tests.cuda._wgrad_budget_program", counters=log, timeout=3600)
    from ptxemu import read_log

    records = iter(read_log(log))
    layers = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    assert len(layers) == 7
    for layer in layers:
        products, reduction = next(records), next(records)
        c, r = products.counters, reduction.counters
        part_bytes = 4 * layer["values"] * products.grid[2]

        stages = -(-layer["pixels"] // STAGE_PIXELS)
        assert c["mma"] == layer["values"] // VALUES_A_MMA * 2 * stages, layer
        assert c["dram_read_bytes"] <= MOST_DRAM * layer["operand_bytes"], layer
        assert c["dram_write_bytes"] == r["dram_read_bytes"] == part_bytes, layer
        assert r["dram_write_bytes"] == 2 * layer["values"], layer
        for counters in (c, r):
            assert counters["ld_coalescing"] >= LEAST_SECTORS_USED, layer
            assert counters["st_coalescing"] >= LEAST_SECTORS_USED, layer
        assert c["ldmatrix_wavefronts"] <= MOST_WAVEFRONTS * c["ldmatrix_requests"], layer
        for access in ("ld", "st"):
            waves, requests = (c[f"{access}_shared_{what}"] for what in ("wavefronts", "requests"))
            assert waves <= MOST_WAVEFRONTS * 4 * requests, layer
            waves, requests = (r[f"{access}_shared_{what}"] for what in ("wavefronts", "requests"))
            assert waves <= MOST_WAVEFRONTS * requests, layer
    assert next(records, None) is None
