"""The stand-in device of tools/ptxemu, for tests that start programs on it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from fusedres._build import extension_missing

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "ptxemu"


class Emulator:
    """Runs Python on the stand-in device with every check on, from the root of the checkout."""

    def __init__(self, device: Any) -> None:
        self.device = device

    def pytest(self, *arguments: str, timeout: float, **options: Any) -> str:
        """Run the GPU tests that ``arguments`` select; fails where one fails or none runs."""
        options = {"sm": 80, "race": True, "check_init": True, **options}
        plain = ("-q", "-p", "no:cacheprovider", "--tb=short", "-m", "gpu")
        output: str = self.device.pytest(*plain, *arguments, timeout=timeout, **options)
        assert " passed" in output, f"nothing ran:\n{output[-4000:]}"
        return output

    def program(self, module: str, *arguments: str, timeout: float, **options: Any) -> str:
        """Run ``python -m module``."""
        command = [sys.executable, "-m", module, *arguments]
        output: str = self.device.run(command, timeout=timeout, **{"sm": 80, **options})
        return output


@pytest.fixture(scope="session")
def emulator(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Emulator:
    if not (TOOL / "ptxemu").is_dir():
        pytest.skip("tools/ptxemu is not in this checkout")
    if reason := extension_missing("_C_cuda"):
        pytest.skip(reason)
    if str(TOOL) not in sys.path:
        sys.path.insert(0, str(TOOL))
    from ptxemu import device, testing, toolchain

    for program in ("nvcc", "g++", "nm"):
        if not toolchain.have(program):
            pytest.skip(f"{program} is not on PATH: the stand-in device cannot be built")
    device.build()
    return Emulator(testing.StandIn())
