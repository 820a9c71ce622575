"""The CUDA extension as it was built: for one architecture by ``make test``, for all by default."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

import fusedres
from benchmarks.kernels.compiled import architectures, find_cuobjdump
from fusedres._build import extension_missing


def need_cuobjdump() -> None:
    if find_cuobjdump() is None:
        pytest.skip("cuobjdump is not on PATH, and Triton, which brings one, is not installed")


def built() -> Path:
    (found,) = Path(fusedres.__file__).parent.glob("_C_cuda.*so")
    return found


@cache
def built_for() -> list[str]:
    """The architectures of the extension; none where it was not built."""
    return [] if extension_missing("_C_cuda") else architectures(built())


@pytest.fixture(scope="module")
def library() -> Path:
    if reason := extension_missing("_C_cuda"):
        pytest.skip(reason)
    need_cuobjdump()
    return built()
