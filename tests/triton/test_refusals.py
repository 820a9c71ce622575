"""Where the Triton back-end cannot serve, it is named with the reason, and nothing else is affected."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import fusedres
from fusedres import ops
from fusedres.backends import triton as backend

ROOT = Path(__file__).parents[2]

WITHOUT_TRITON = """
import sys
sys.modules["triton"] = None  # as where it is not installed
import torch
import fusedres
from fusedres import ops

y = torch.randn(2, 3, 4, 4)
assert ops.bn_stats(y)[0].sum() == 32, "the other back-ends serve"
try:
    with fusedres.backend("triton"):
        ops.bn_stats(y)
except RuntimeError as error:
    print(error)
"""


def test_without_triton() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TRITON], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "back-end 'triton' cannot serve this call: Triton is not installed; `pip install" in done.stdout


needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)


@needs_triton
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu() -> None:
    with (
        fusedres.backend("triton"),
        pytest.raises(RuntimeError, match="back-end 'triton' cannot serve this call: torch sees no GPU"),
    ):
        ops.bn_stats(torch.randn(2, 3, 4, 4))


@needs_triton
@pytest.mark.parametrize(
    ("device", "dtype", "reason"),
    [
        ("cuda", torch.float64, "take float16, bfloat16 and float32; got torch.float64"),
        ("cpu", torch.float32, "run on GPU tensors; got cpu"),
    ],
)
def test_what_it_does_not_take(device: str, dtype: torch.dtype, reason: str) -> None:
    assert reason in str(backend.cannot_serve(torch.device(device), dtype))
    assert backend.cannot_serve(torch.device("cuda"), torch.bfloat16) is None
