"""The CUDA extension as it was built: for one architecture by ``make test``, for all by default."""

from __future__ import annotations

from pathlib import Path

import pytest

import fusedres
from benchmarks.kernels.compiled import find_cuobjdump
from fusedres._build import extension_missing


def need_cuobjdump() -> None:
    if find_cuobjdump() is None:
        pytest.skip("cuobjdump is not on PATH, and Triton, which brings one, is not installed")


def built() -> Path:
    (found,) = Path(fusedres.__file__).parent.glob("_C_cuda.*so")
    return found


@pytest.fixture(scope="module")
def library() -> Path:
    if reason := extension_missing("_C_cuda"):
        pytest.skip(reason)
    need_cuobjdump()
    return built()
