"""What a model holds and faults: pooled outputs, peaks against eager's, the steady state."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

import fusedres
from fusedres._build import extension_missing

if extension_missing("_C") is not None or sys.platform != "linux":
    pytest.skip("the C++ extension on Linux alone pools its outputs", allow_module_level=True)

from fusedres import ops
from fusedres.backends.cpu import engine, pool
from tests.nn._memory_program import Found, Task

ROOT = Path(__file__).parents[2]


def measured(task: Task, **environment: str) -> Found:
    done = subprocess.run(
        [sys.executable, "-m", "tests.nn._memory_program", json.dumps(task)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "FUSEDRES_PLANS": "0"} | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return Found(*json.loads(done.stdout))


def large(value: float) -> Tensor:
    """An output of 4 MB, full of ``value``."""
    a = torch.full((1, 64, 128, 128), value).contiguous(memory_format=torch.channels_last)
    with fusedres.backend("cpu"):
        return ops.affine_add_act(a, torch.ones(64), torch.zeros(64))


@pytest.fixture
def bound() -> Iterator[int]:
    found = pool.usage().bound
    if found == 0:
        pytest.skip("FUSEDRES_CPU_POOL=0, or no virtual memory for a pool")
    yield found


def test_live_outputs_share_nothing(bound: int) -> None:
    before = pool.usage().taken
    outputs = [large(float(i)) for i in range(4)]
    views = [output[:, 3:5].transpose(1, 2) for output in outputs]
    assert pool.usage().taken - before == 4 * 2**22
    del outputs
    later = [large(-1.0) for _ in range(4)]
    for i, view in enumerate(views):
        assert bool((view == i).all()), "a view holds its storage"
    assert len({output.data_ptr() for output in later}) == 4
    del later, views, view
    assert pool.usage().taken == before


def test_a_dead_output_is_used_again(bound: int) -> None:
    large(0.0)
    reached = pool.usage().reached
    for i in range(8):
        assert bool((large(float(i)) == i).all()), "whatever the memory held"
    assert pool.usage().reached == reached


def test_it_is_as_any_tensor(bound: int) -> None:
    output = large(1.0)
    assert output.is_contiguous(memory_format=torch.channels_last)
    assert output.untyped_storage().nbytes() == 2**22
    assert not output.is_inference() and output._version == 0
    with torch.inference_mode():
        assert large(1.0).is_inference()
    leaf = output.requires_grad_()
    (leaf * 2).sum().backward()
    assert leaf.grad is not None and bool((leaf.grad == 2).all())


def test_threads_hold_outputs_of_their_own(bound: int) -> None:
    def work(value: int) -> bool:
        return all(bool((large(float(value)) == value).all()) for _ in range(20))

    before = pool.usage().taken
    with ThreadPoolExecutor(4) as executor:
        assert all(executor.map(work, range(4)))
    assert pool.usage().taken == before


SMALL = Task(True, "resnet18", "float32", 1, False, 8)


def test_inference_faults_no_pages_once_it_is_warm() -> None:
    """Batch 1, and sixteen images of half the size, whose maps malloc would give back to the system."""
    for task in (SMALL, SMALL._replace(batch=16, size=112)):
        faults = measured(task).faults
        assert statistics.median(faults[4:]) <= 16, faults


FIRST_CALL = """
import torch
import fusedres
from tests.nn.test_memory import pool
model, images = fusedres.resnet50().eval(), torch.randn(16, 3, 96, 96)
reached = []
with torch.inference_mode():
    for _ in range(3):
        model(images)
        reached.append(pool.usage().reached)
print(*reached)
"""


@pytest.mark.skipif(engine.tile_isa(torch.float32) == "portable", reason="nothing prepares whole blocks")
def test_the_first_call_holds_no_more_than_the_next_ones() -> None:
    """Nor whole maps of early stages, through which images are carried: ten stems' by a call a block."""
    done = subprocess.run(
        [sys.executable, "-c", FIRST_CALL],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "FUSEDRES_PLANS": "0"},
        capture_output=True,
        text=True,
    )
    first, *others = map(int, done.stdout.split())
    stem = 16 * 64 * 24 * 24 * 4  # stage 1's outputs are four times as large
    # One more where the pieces that the first call left free do not fit the second's: AVX-512.
    assert max(others) <= first + stem, done.stderr
    assert max(others) < 9 * stem


BOUNDED = """
import os
from tests.nn.test_memory import large, pool
try:
    os.environ["FUSEDRES_CPU_POOL"] = "much"
    large(1.0)
except RuntimeError as error:
    print(error)
os.environ["FUSEDRES_CPU_POOL"] = "8"
held = [large(float(i)) for i in range(3)]
assert all((output == i).all() for i, output in enumerate(held))
print(*pool.usage())
"""


def test_the_pool_can_be_bounded() -> None:
    """What is over the bound comes from malloc; anything but a number of megabytes is refused."""
    done = subprocess.run([sys.executable, "-c", BOUNDED], cwd=ROOT, capture_output=True, text=True)
    assert "FUSEDRES_CPU_POOL: must be a number of megabytes, 0 or more; got much" in done.stdout, done.stderr
    assert done.stdout.splitlines()[-1] == f"{2**23} {2**23} {2**23}"


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("train", [False, True], ids=["inference", "training"])
def test_the_peak_is_below_eagers(dtype: str, train: bool) -> None:
    """ResNet-50 at batch 16, packed weights and the pool included; eager's own varies by a fifth."""
    assert_below_eager(Task(True, "resnet50", dtype, 16, train, 4))


@pytest.mark.slow
def test_the_peak_of_one_image_is_below_eagers_once_weights_are_offloaded() -> None:
    """Packed weights weigh more than everything else at batch 1; the originals then lie in a file."""
    assert_below_eager(Task(True, "resnet50", "float32", 1, False, 8, offload=True))


def assert_below_eager(task: Task) -> None:
    eager = [measured(task._replace(ours=False, offload=False)) for _ in range(3)]
    ours = measured(task)
    assert ours.peak < max(run.peak for run in eager), (ours, eager)
