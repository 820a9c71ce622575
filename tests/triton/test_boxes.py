"""Tiles that are boxes of pixels, copied by tensor descriptors: which boxes, and what comes of them."""

from __future__ import annotations

import importlib.util
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

if importlib.util.find_spec("triton") is None:
    pytest.skip("Triton is not installed", allow_module_level=True)

from fusedres.backends.triton._boxes import Box, snug_box

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "ptxemu"
CASES = "tests/triton/_box_cases.py"


@pytest.mark.parametrize("rows", [32, 64, 128])
@pytest.mark.parametrize("size", [7, 14, 28, 56])
def test_a_batch_of_resnet_maps_is_covered_exactly(size: int, rows: int) -> None:
    area = (128, size, size)
    box = snug_box(rows, area)
    assert box is not None
    assert math.prod(box) == rows
    assert box.tiles(area) * rows == 128 * size * size


def test_of_equal_boxes_the_one_with_fewest_images() -> None:
    assert snug_box(64, (8, 56, 56)) == Box(1, 8, 8)
    assert snug_box(128, (8, 56, 56)) == Box(2, 8, 8)


def test_pixels_in_one_row() -> None:
    assert snug_box(128, (1, 1, 1000)) == Box(1, 1, 128)


def test_a_map_that_no_box_fits_stays_with_pointers() -> None:
    assert snug_box(64, (1, 9, 9)) is None
    assert snug_box(32, (2, 6, 5)) is None


def run(command: list[str], **environment: str) -> None:
    done = subprocess.run(
        [*command, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", CASES],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True, text=True, timeout=7200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout, f"nothing ran:\n{done.stdout[-2000:]}"


def interpreted(selection: str) -> None:
    run([sys.executable], TRITON_INTERPRET="1", PYTEST_ADDOPTS=f"-k '{selection}'")


def test_interpreted_quick() -> None:
    interpreted("TestConvDgrad and test_numbers and dilated and float16 and not bfloat16")


@pytest.mark.slow
def test_interpreted() -> None:
    interpreted("test_numbers and not bfloat16")


@pytest.mark.slow
@pytest.mark.emulated
@pytest.mark.skipif(not TOOL.is_dir(), reason="tools/ptxemu is not in this checkout")
@pytest.mark.parametrize("dtype", ["bfloat16", "(float16 and grouped)"])
def test_on_the_stand_in_device(dtype: str, tmp_path: Path) -> None:
    """TMA, mbarriers and wgmma executed, by Triton's own driver and launcher."""
    run(
        [sys.executable, "-m", "ptxemu", "run", "--sm", "90", "--", sys.executable],
        PYTHONPATH=f"{ROOT}:{TOOL}",
        TRITON_CACHE_DIR=str(tmp_path),
        PYTEST_ADDOPTS=f"-m gpu -k 'test_numbers and {dtype}'",
    )
