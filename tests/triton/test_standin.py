"""Blocks and whole networks on the stand-in `cuda` device, by Triton's own driver, launcher and autotuner."""

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


def run(module: str, *arguments: str, sm: int = 80, **environment: str) -> str:
    """Run ``python -m module`` on the stand-in device; what it printed."""
    device = [sys.executable, "-m", "ptxemu", "run", "--sm", str(sm), "--"]
    done = subprocess.run(
        [*device, sys.executable, "-m", module, *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=7200, check=False,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{TOOL}", **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-4000:]
    return done.stdout


def own_folders(folder: Path) -> dict[str, str]:
    """Neither what Triton compiled before nor what was tuned."""
    return {"TRITON_CACHE_DIR": str(folder / "triton"), "FUSEDRES_PLANS": str(folder / "plans")}


def test_basic_block(tmp_path: Path) -> None:
    assert run("tests.triton._standin_program", **own_folders(tmp_path)).count("fine") == 3


@pytest.mark.parametrize("sm", [80, 90])
def test_autotuning_and_plans(sm: int, tmp_path: Path) -> None:
    assert run("tests.triton._tune_program", sm=sm, **own_folders(tmp_path)).count("fine") == 2


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("numerics", ["bf16", "tf32", "fp32"])
@pytest.mark.parametrize("composition", ["auto", "pointwise", "stats", "mainloop"])
def test_whole_network(composition: str, numerics: str, name: str) -> None:
    """Inference (``auto``) or a training step, against torchvision's on the CPU.

    Each in a process of its own: about a hundred kernels are compiled by Triton and for the emulator, a
    few minutes' work. Not for races: warps that hold copies of one value may all write it to one place
    (test_emulated.py tells those apart).
    """
    case = f"triton-{name}-{composition}-{numerics}"
    pytest_command = ("-q", "-p", "no:cacheprovider", "--tb=short", "-m", "gpu", "-k", case)
    output = run("pytest", *pytest_command, "tests/models/test_on_gpu.py", FUSEDRES_BACKEND="triton")
    assert "1 passed" in output, f"it did not run:\n{output[-2000:]}"
