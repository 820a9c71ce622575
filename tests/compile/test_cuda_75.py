"""Every kernel compiles for compute capability 7.5, where convolutions are left to the library."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: One dtype of each kernel, and the one whose matrix instructions differ. fp16's are bf16's.
SOURCES = sorted(
    path
    for path in (ROOT / "csrc" / "cuda").rglob("*.cu")
    if not path.stem.endswith(("_float16", "_half", "_float32", "_float"))
    or path.stem in ("bottleneck_infer_float16", "conv_dgrad_float32")
)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not on PATH")
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_compiles(source: Path, tmp_path: Path) -> None:
    command = ["nvcc", "-std=c++20", "-arch=sm_75", "-cubin", f"-I{ROOT / 'csrc'}"]
    done = subprocess.run(
        [*command, str(source), "-o", str(tmp_path / "out.cubin")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "warning" not in done.stderr, done.stderr[-3000:]
