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


def run(module: str, sm: int, folder: Path) -> str:
    """Run ``python -m module`` on the stand-in device; what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "ptxemu", "run", "--sm", str(sm), "--", sys.executable, "-m", module],
        cwd=ROOT, capture_output=True, text=True, timeout=3600, check=False,
        env={
            **os.environ,
            "PYTHONPATH": f"{ROOT}:{TOOL}",
            "TRITON_CACHE_DIR": str(folder / "triton"),
            "FUSEDRES_PLANS": str(folder / "plans"),
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    return done.stdout


def test_basic_block(tmp_path: Path) -> None:
    assert run("tests.triton._standin_program", 80, tmp_path).count("fine") == 2


@pytest.mark.parametrize("sm", [80, 90])
def test_autotuning_and_plans(sm: int, tmp_path: Path) -> None:
    assert run("tests.triton._tune_program", sm, tmp_path).count("fine") == 2
