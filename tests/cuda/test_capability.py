"""A compute capability that the build lacks, met for real: a stand-in device of 7.5, kernels for 8.0."""

from __future__ import annotations

import pytest

from fusedres._build import load_extension
from fusedres.backends.cuda._device import serves
from tests.cuda.conftest import Emulator

pytestmark = pytest.mark.emulated


def test_a_device_that_the_build_lacks(emulator: Emulator) -> None:
    archs: str = load_extension("_C_cuda").cuda_archs()
    if serves(archs, (7, 5)):
        pytest.skip(f"this build has kernels for 7.5: {archs}")
    said = emulator.program("tests.cuda._capability_program", timeout=600, sm=75)
    refusals = [line for line in said.splitlines() if "the build has no kernels" in line]
    assert len(refusals) == 5, said
    for line in refusals:
        assert "compute capability 7.5" in line and archs in line and "FUSEDRES_CUDA_ARCHS" in line, line
    assert "nothing was written" in said
