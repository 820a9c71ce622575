"""A team beside a busy neighbour (csrc/cpu/conv/shared_core.*): the same bits, the same affinities."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fusedres._build import extension_missing
from tests._parity import assert_same_bits

if extension_missing("_C") is not None:
    pytest.skip("the C++ extension is not built", allow_module_level=True)
if not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2:
    pytest.skip("threads move on Linux, between two cores or more", allow_module_level=True)

from fusedres.backends.cpu.engine import Algorithm

OPS = torch.ops.fusedres_cpu
NHWC = torch.channels_last
SPIN = "import os, sys\nos.sched_setaffinity(0, {int(sys.argv[1])})\nprint(flush=True)\nwhile True: pass"


@pytest.fixture
def neighbour() -> Iterator[None]:
    """Another process that keeps one of our cores busy."""
    core = max(os.sched_getaffinity(0))
    with subprocess.Popen([sys.executable, "-c", SPIN, str(core)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield
        process.kill()


def affinities() -> dict[str, set[int]]:
    tasks = Path("/proc/self/task").iterdir()
    return {task.name: os.sched_getaffinity(int(task.name)) for task in tasks}


@pytest.mark.usefixtures("neighbour")
def test_threads_that_move_keep_their_affinity() -> None:
    x = torch.randn(8, 64, 56, 56).contiguous(memory_format=NHWC)
    packed = OPS.conv_pack(torch.randn(64, 64, 3, 3), (1, 1), (1, 1), int(Algorithm.DIRECT_F32), (1, 1), 1)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        expected = OPS.conv_packed(x, packed, None, None, None, True)
        allowed = affinities()
        end = time.monotonic() + 1.5  # in which the system puts both threads on one core many times
        while time.monotonic() < end:
            result = OPS.conv_packed(x, packed, None, None, None, True)
            assert_same_bits(result, expected, "beside a neighbour")
        assert affinities() == allowed
    finally:
        torch.set_num_threads(before)
