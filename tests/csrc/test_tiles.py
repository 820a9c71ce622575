"""The engine's tiles of every instruction set that this CPU has, each in a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fusedres._build import extension_missing

if extension_missing("_C") is not None:
    pytest.skip("the C++ extension is not built", allow_module_level=True)

from fusedres.backends.cpu import engine

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("isa", ["portable", "avx2"])
def test_every_case_on_lesser_tiles(isa: str) -> None:
    """test_conv_engine.py tests those of the process; what is read beyond the operands is NaN."""
    known = ["portable", "avx2", "avx512"]
    if known.index(isa) >= known.index(engine.tile_isa(torch.float32)):
        pytest.skip(f"{isa} is what this process runs, or more than it has")
    done = subprocess.run(
        [sys.executable, "-m", "tests.csrc.every_tile"],
        env={**os.environ, "FUSEDRES_CPU_ISA": isa},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.split() == [isa] * 4


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ found")
@pytest.mark.parametrize(
    "source",
    ["tile_portable.cpp", "winograd_portable.cpp", "direct.cpp", "packed.cpp", "stage.cpp", "block.cpp"],
)
def test_the_portable_engine_includes_nothing_of_one_cpu(source: str) -> None:
    command = ["g++", "-M", "-std=c++20", "-Icsrc", f"csrc/cpu/conv/{source}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert ("vec.h" in done.stdout) == source.endswith("_portable.cpp")
    assert "intrin" not in done.stdout
