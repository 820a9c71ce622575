"""Starts :mod:`.device_program` on the stand-in device of tools/ptxemu."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from ptxemu import device

ROOT = Path(__file__).parents[2]
#: A device with so few processors is full of the largest tiles at a batch of one.
FEW_PROCESSORS = 2
#: Compute capability, and so the shared memory a block may have, of the chips.
A100, H100 = 80, 90


def run(*arguments: str, sm: int = A100, list_only: bool = False) -> list[dict[str, Any]]:
    """The calls of the program run with ``arguments``; with ``list_only`` at full size, and not executed.

    Raises:
        RuntimeError: the program failed; the message ends with what it printed.
    """
    with tempfile.TemporaryDirectory(prefix="fusedres-kernels-") as folder:
        out = Path(folder) / "calls.json"
        options = device.DeviceOptions(
            sm=sm,
            processors=None if list_only else FEW_PROCESSORS,
            counters=Path(folder) / "counters",
            list_only=list_only,
        )
        command = [sys.executable, "-m", "benchmarks.kernels.device_program", str(out), *arguments]
        done = device.run(command, options, cwd=ROOT)
        if done.returncode:
            raise RuntimeError(f"{' '.join(arguments)} failed on the stand-in device:\n{done.stderr[-4000:]}")
        calls: list[dict[str, Any]] = json.loads(out.read_text())
    return calls
