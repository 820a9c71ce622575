"""What nvcc makes of the CUDA kernels: no spills and no local memory, on every architecture."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

import fusedres
from fusedres._build import extension_missing

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "csrc" / "cuda").rglob("*.cu"))
ARCHITECTURES = ("80", "90", "100", "120")


class Usage(NamedTuple):
    """Registers a thread, and bytes of stack and of local memory; spills live on the stack."""

    registers: int
    stack: int
    local: int


def find_cuobjdump() -> str:
    """The toolkit's, or the one that Triton brings; skips where neither is there."""
    found = shutil.which("cuobjdump")
    if found is None and importlib.util.find_spec("triton") is not None:
        import triton

        found = triton.knobs.nvidia.cuobjdump.path
    if found is None:
        pytest.skip("cuobjdump is not on PATH, and Triton, which brings one, is not installed")
    return found


def resource_usage(file: Path) -> dict[str, Usage]:
    """Each kernel of a cubin, an object or a shared library, by its mangled name."""
    command = [find_cuobjdump(), "--dump-resource-usage", str(file)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.findall(r"Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", text)
    return {name: Usage(*map(int, numbers)) for name, *numbers in found}


def assert_no_memory_of_its_own(kernels: dict[str, Usage]) -> None:
    spilling = {name: usage for name, usage in kernels.items() if usage.stack or usage.local}
    assert not spilling, f"stack or local memory in {spilling}"


def test_the_build_has_no_spills() -> None:
    if reason := extension_missing("_C_cuda"):
        pytest.skip(reason)
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
    cubin = tmp_path / "kernel.cubin"
    options = ["-O3", "-std=c++20", f"-I{ROOT / 'csrc'}", f"-arch=sm_{architecture}", "-cubin"]
    subprocess.run(["nvcc", *options, str(source), "-o", str(cubin)], check=True)
    kernels = resource_usage(cubin)
    assert kernels, f"no kernel in {source.name}"
    assert_no_memory_of_its_own(kernels)
