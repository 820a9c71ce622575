"""Triton's own NVIDIA driver on the stand-in device: compile, load, launch, autotune, torch.compile."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ptxemu import device
from ptxemu.testing import StandIn

pytest.importorskip("triton", reason="triton is not installed")
PROGRAM = Path(__file__).parent / "programs" / "triton_main.py"


@pytest.fixture(scope="session")
def run_checks(stand_in: StandIn, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Run checks of triton_main.py on the device, with compiler caches of their own."""
    folder = tmp_path_factory.mktemp("triton")
    env = {"TRITON_CACHE_DIR": str(folder / "triton"), "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor")}

    def run(*checks: str, **options: Any) -> str:
        output = stand_in.run([sys.executable, PROGRAM, *checks], env=env, **options)
        assert output.count("fine") == len(checks), output
        return output

    return run


@pytest.mark.parametrize("sm", [pytest.param(80, marks=pytest.mark.slow), 90])
def test_kernels(run_checks: Callable[..., str], sm: int) -> None:
    output = run_checks("add", "softmax", "atomic", "bounds", sm=sm)
    assert "kernel bad_kernel" in output and "triton_main.py:" in output


@pytest.mark.slow
@pytest.mark.parametrize("sm", [80, 90])
def test_autotuned_matmul(run_checks: Callable[..., str], sm: int) -> None:
    run_checks("autotune", sm=sm, race=True)


def test_tensor_descriptors(run_checks: Callable[..., str]) -> None:
    run_checks("tma", "device_tma", sm=90)


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_torch_compile(run_checks: Callable[..., str], backend: str) -> None:
    run_checks(backend)


@pytest.mark.slow
def test_inductor_cuda_graphs(run_checks: Callable[..., str]) -> None:
    run_checks("reduce_overhead", caching_allocator=True)


def test_ptxas_errors(stand_in: StandIn, tmp_path: Path) -> None:
    """The stand-in's ptxas keeps the real one's verdict and report."""
    source, output = tmp_path / "kernel.ptx", tmp_path / "kernel.cubin"
    source.write_text(".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k() { ret; }\n")
    environment = device.environment()
    command = [environment["TRITON_PTXAS_PATH"], "-v", "--gpu-name=sm_80", str(source), "-o", str(output)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0 and "Used" in result.stderr, result.stderr
    assert output.read_text().startswith(source.read_text()) and "// ptxas info" in output.read_text()
    source.write_text(source.read_text().replace("ret;", "add.s32 %r1, 1, 2; ret;"))
    output.unlink()
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode != 0 and "%r1" in result.stderr and not output.exists()
