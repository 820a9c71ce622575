"""What nvcc makes of the CUDA kernels: no spills and no local memory, on every architecture."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import fusedres
from benchmarks.kernels.compiled import Usage, find_cuobjdump, resource_usage
from fusedres._build import extension_missing

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "csrc" / "cuda").rglob("*.cu"))
ARCHITECTURES = ("80", "90", "100", "120")


def need_cuobjdump() -> None:
    if find_cuobjdump() is None:
        pytest.skip("cuobjdump is not on PATH, and Triton, which brings one, is not installed")


def assert_no_memory_of_its_own(kernels: dict[str, Usage]) -> None:
    spilling = {name: usage for name, usage in kernels.items() if usage.stack or usage.local}
    assert not spilling, f"stack or local memory in {spilling}"


def test_the_build_has_no_spills() -> None:
    if reason := extension_missing("_C_cuda"):
        pytest.skip(reason)
    need_cuobjdump()
    (library,) = Path(fusedres.__file__).parent.glob("_C_cuda.*so")
    kernels = resource_usage(library)
    assert kernels, "no kernel in the library"
    assert_no_memory_of_its_own(kernels)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_no_spills(source: Path, architecture: str, tmp_path: Path) -> None:
    if shutil.which("nvcc") is None:
        pytest.skip("nvcc is not on PATH")
    need_cuobjdump()
    cubin = tmp_path / "kernel.cubin"
    options = ["-O3", "-std=c++20", f"-I{ROOT / 'csrc'}", f"-arch=sm_{architecture}", "-cubin"]
    subprocess.run(["nvcc", *options, str(source), "-o", str(cubin)], check=True)
    kernels = resource_usage(cubin)
    assert kernels, f"no kernel in {source.name}"
    assert_no_memory_of_its_own(kernels)
