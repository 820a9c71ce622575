"""The stand-in device: torch.cuda, an extension and nvcc programs, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import ptxemu
import pytest
from ptxemu.testing import StandIn, compile_program

TESTS = Path(__file__).parent
PROGRAM = TESTS / "programs" / "torch_main.py"


@pytest.fixture(scope="session")
def extension(stand_in: StandIn, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test extension, built by torch from tests/extension with PTX for sm_80."""
    pytest.importorskip("ninja", reason="ninja is not installed: torch builds extensions with it")
    folder = tmp_path_factory.mktemp("extension")
    builder = [sys.executable, str(TESTS / "extension" / "build_ext.py"), str(folder)]
    subprocess.run(builder, check=True, env={**os.environ, "PYTHONPATH": str(TESTS.parent)})
    return folder / "pe_test.so"


def test_torch_cuda(stand_in: StandIn) -> None:
    assert "fine" in stand_in.run([sys.executable, PROGRAM, "tensors"])


def test_an_older_device_refuses_newer_ptx(stand_in: StandIn, extension: Path) -> None:
    output = stand_in.run([sys.executable, PROGRAM, "extension", extension], sm=75, expect=1)
    assert "its fat binary holds no PTX for sm_75" in output


def test_builtin_kernel_is_named(stand_in: StandIn) -> None:
    output = stand_in.run([sys.executable, PROGRAM, "builtin_kernel"], expect=1)
    assert "cannot run kernel" in output and "vectorized_elementwise_kernel" in output
    assert "holds no PTX" in output


def test_torch_mock_training(stand_in: StandIn) -> None:
    assert "fine" in stand_in.run([sys.executable, PROGRAM, "training"])


def test_extension(stand_in: StandIn, extension: Path) -> None:
    output = stand_in.run([sys.executable, PROGRAM, "extension", extension], log=True, race=True)
    assert "fine" in output and "launch conv" in output


def test_counter_log(stand_in: StandIn, extension: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    stand_in.run([sys.executable, PROGRAM, "count_one_launch", extension], counters=log)
    (record,) = ptxemu.read_log(log)
    assert "scale_relu" in record.kernel and record.grid == [4, 1, 1]
    assert record.counters["st_global_bytes"] == 4096 and record.counters["dram_write_bytes"] >= 4096


def test_launches_are_listed_and_not_run(stand_in: StandIn, extension: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    stand_in.run([sys.executable, PROGRAM, "count_one_launch", extension], counters=log, list_only=True)
    (record,) = ptxemu.read_log(log)
    assert "scale_relu" in record.kernel and record.grid == [4, 1, 1]
    assert record.counters["warp_inst_total"] == record.counters["dram_write_bytes"] == 0


def test_out_of_bounds_is_caught(stand_in: StandIn, extension: Path) -> None:
    output = stand_in.run([sys.executable, PROGRAM, "out_of_bounds", extension], expect=1)
    assert "store of 4 bytes" in output and "out of bounds" in output
    assert "kernel failed in the PTX emulator" in output


def test_host_pointer_is_caught(stand_in: StandIn, extension: Path) -> None:
    output = stand_in.run([sys.executable, PROGRAM, "host_pointer", extension], expect=1)
    assert "load of 4 bytes" in output and "out of bounds" in output


def test_cuda_graph(stand_in: StandIn, extension: Path) -> None:
    output = stand_in.run([sys.executable, PROGRAM, "cuda_graph", extension], caching_allocator=True)
    assert "fine" in output and "cudaMemcpyToSymbol: not permitted" in output
    assert "warning: kernel" in output and "runs now" in output


@pytest.mark.parametrize(
    "compression",
    ["none", pytest.param("speed", marks=pytest.mark.slow), pytest.param("size", marks=pytest.mark.slow)],
)
def test_program_sm90a(stand_in: StandIn, compression: str) -> None:
    """An nvcc program with TMA and wgmma; PTX uncompressed, LZ4 and zstd."""
    source = TESTS / "programs" / "hopper_main.cu"
    program = compile_program(source, "90a", flags=[f"-Xfatbin=-compress-mode={compression}"])
    assert "fine" in stand_in.run([program], race=True)


def test_launches_and_graphs(stand_in: StandIn) -> None:
    """Cooperative launch and grid.sync(), launch attributes, stream capture on the runtime API."""
    source = TESTS / "programs" / "launch_main.cu"
    program = compile_program(source, "90", flags=["-Xfatbin=-compress-mode=none"])
    for options in ({}, {"race": True, "seed": 3}):
        output = stand_in.run([program], **options)
        assert "fine" in output and "use after free" in output


def test_command_line(stand_in: StandIn) -> None:
    """`python -m ptxemu run` gives a program the device and its exit status."""
    code = "import os, sys; print(os.environ['PTXEMU_SM']); sys.exit(3)"
    command = [sys.executable, "-m", "ptxemu", "run", "--sm", "80", "--", sys.executable, "-c", code]
    env = {**os.environ, "PYTHONPATH": str(TESTS.parent)}
    result = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (3, "80\n"), result.stderr
