"""A block's forward, backward and inference on the stand-in `cuda` device, launcher and arguments too."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "ptxemu"

pytestmark = [
    pytest.mark.emulated,
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed"),
    pytest.mark.skipif(not TOOL.is_dir(), reason="tools/ptxemu is not in this checkout"),
]


def test_basic_block(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ptxemu", "run", "--sm", "80", "--",
         sys.executable, "-m", "tests.triton._standin_program"],
        cwd=ROOT, capture_output=True, text=True, timeout=3600, check=False,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{TOOL}", "TRITON_CACHE_DIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    assert done.stdout.count("fine") == 2
