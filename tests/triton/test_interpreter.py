"""Every kernel in Triton's interpreter, held to the rules of tests/ops, in a process of its own.

Triton decides when a kernel is decorated whether it is compiled or interpreted, hence the process. There
are no bfloat16 cases: the interpreter computes bfloat16 products wrongly (test_emulated.py has them), and
tests/ops/conftest.py skips what the back-end refuses for that.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")

#: The rules of each op that Triton serves.
KERNEL_TESTS = sorted(
    f"tests/ops/test_{path.stem}.py" for path in (ROOT / "fusedres/backends/triton").glob("[!_]*.py")
)

#: An interpreted program costs milliseconds: by default one odd shape an op with all it can be given, and
#: the convolution geometries that have code of their own; every case, and every other rule, when slow.
QUICK = (
    "test_numbers and triton and (odd-full or odd-two or odd-frozen or odd-one or grouped-full"
    " or stride2-full or only_padding-full) and (float32 or (float16 and odd-full)) and not bfloat16"
)


def run_interpreted(selection: str, timeout: float, *files: str) -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    pytest_command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short"]
    done = subprocess.run(
        [*pytest_command, "-k", selection, *files],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout, f"nothing ran:\n{done.stdout[-2000:]}"


@pytest.mark.slow
def test_kernels_quick() -> None:
    run_interpreted(QUICK, 1200, *KERNEL_TESTS)


@pytest.mark.slow
@pytest.mark.parametrize("file", KERNEL_TESTS)
def test_kernels(file: str) -> None:
    run_interpreted("triton and not bfloat16", 7200, file)


def test_one_convolution() -> None:
    """The rung itself works: what `make test` affords."""
    run_interpreted(
        "test_numbers and triton and odd-full and float16 and not bfloat16",
        600,
        "tests/ops/test_conv_affine_act.py",
    )


def test_bfloat16_is_refused_with_its_reason() -> None:
    code = (
        "import torch, fusedres.ops as ops\n"
        "x = torch.ones(1, 1, 2, 2).bfloat16()\n"
        "try: ops.bn_stats(x, backend='triton')\n"
        "except RuntimeError as refusal: print(refusal)"
    )
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "interpreter computes bfloat16 products wrongly" in done.stdout, done.stderr
