"""What nvcc makes of the CUDA kernels: no spills and no local memory, on every architecture."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks.kernels.compiled import Usage, resource_usage
from tests.compile.conftest import built_for, need_cuobjdump

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "csrc" / "cuda").rglob("*.cu"))
ARCHITECTURES = ("80", "90", "100", "120")


def assert_no_memory_of_its_own(kernels: dict[str, Usage]) -> None:
    spilling = {name: usage for name, usage in kernels.items() if usage.stack or usage.local}
    assert not spilling, f"stack or local memory in {spilling}"


def test_the_build_has_no_spills(library: Path) -> None:
    names = set()
    for architecture in built_for():
        kernels = resource_usage(library, architecture)
        assert_no_memory_of_its_own(kernels)
        names.add(frozenset(kernels))
    assert len(names) == 1 and all(names), "no kernel, or not the same ones on every architecture"


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_no_spills(source: Path, architecture: str, tmp_path: Path) -> None:
    """Of the architectures that the build is not for. A build of the default ones leaves none."""
    need_cuobjdump()
    if architecture in built_for():
        pytest.skip(f"test_the_build_has_no_spills reads the build for {architecture}")
    if shutil.which("nvcc") is None:
        pytest.skip("nvcc is not on PATH")
    cubin = tmp_path / "kernel.cubin"
    options = ["-O3", "-std=c++20", f"-I{ROOT / 'csrc'}", f"-arch=sm_{architecture}", "-cubin"]
    subprocess.run(["nvcc", *options, str(source), "-o", str(cubin)], check=True)
    kernels = resource_usage(cubin)
    assert kernels, f"no kernel in {source.name}"
    assert_no_memory_of_its_own(kernels)
