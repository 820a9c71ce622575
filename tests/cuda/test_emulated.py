"""The GPU tests on the stand-in device of tools/ptxemu: the same files, the kernels executed from their PTX.

Bounds, races between warps and uninitialised memory are checked. torch's own kernels run on the host.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cuda.conftest import ROOT, Emulator

pytestmark = pytest.mark.emulated


def files(folder: str, having: str) -> list[str]:
    """The test files of a folder with ``having`` in their text."""
    found = sorted((ROOT / "tests" / folder).glob("test_*.py"))
    return [str(path.relative_to(ROOT)) for path in found if having in path.read_text()]


KERNEL_TESTS = files("ops", "(KernelRules)")
#: The blocks above the kernel ops; slow, since a block runs a dozen kernels.
BLOCK_TESTS = files("ops", "(BlockRules)")
#: Written for the GPU alone. Graphs need torch's caching allocator; bounds are then those of its segments.
GPU_TESTS = files("cuda", "\npytestmark = pytest.mark.gpu")
WHOLE_NETWORKS = "tests/models/test_on_gpu.py"

#: By default one odd shape an op, with all that it can be given, and geometries that have code of their own.
QUICK = (
    "test_numbers and cuda and (odd-full or odd-two or odd-frozen or odd-one or even-full or grouped-full"
    " or stride2-full or only_padding-full) and (bfloat16 or odd)"
)


def test_kernels_quick(emulator: Emulator) -> None:
    emulator.pytest("-k", QUICK, *KERNEL_TESTS, timeout=1800)


def test_gpu_files(emulator: Emulator) -> None:
    emulator.pytest("-m", "gpu and not slow", *GPU_TESTS, timeout=1800, caching_allocator=True)


@pytest.mark.slow
def test_largest_tiles(emulator: Emulator) -> None:
    """One processor has work enough with few tiles, and is given large ones."""
    emulator.pytest("tests/cuda/test_conv_dgrad_weights.py", timeout=1800, processors=1)


@pytest.mark.slow
@pytest.mark.parametrize("file", [f for f in GPU_TESTS if "pytest.mark.slow" in (ROOT / f).read_text()])
def test_slow_gpu_files(file: str, emulator: Emulator) -> None:
    emulator.pytest("-m", "gpu and slow", file, timeout=7200, caching_allocator=True)


def test_whole_network(emulator: Emulator) -> None:
    emulator.pytest("-m", "gpu and not slow", WHOLE_NETWORKS, timeout=1800)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_whole_networks(name: str, emulator: Emulator) -> None:
    emulator.pytest("-k", f"cuda-{name}", WHOLE_NETWORKS, timeout=14400)


@pytest.mark.slow
@pytest.mark.parametrize("file", [*KERNEL_TESTS, *BLOCK_TESTS], ids=lambda path: Path(path).stem)
def test_every_case(file: str, emulator: Emulator) -> None:
    emulator.pytest("-k", "cuda", file, timeout=7200)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_kernels_with_warps_in_another_order(seed: int, emulator: Emulator) -> None:
    emulator.pytest("-k", QUICK, *KERNEL_TESTS, timeout=3600, seed=seed)
