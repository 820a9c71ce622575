"""Fixtures of the whole suite: back-ends, seeds, threads."""

from __future__ import annotations

import os

os.environ["FUSEDRES_PLANS"] = "0"  # what somebody tuned on this machine decides no test

import pytest
import torch

import fusedres  # noqa: F401  (registers the back-ends)
from fusedres.ops._dispatch import BACKENDS

#: Whether this process has the stand-in device of tools/ptxemu for a GPU (tests/cuda/test_emulated.py).
EMULATED = "PTXEMU_ROOT" in os.environ
if EMULATED:
    import ptxemu.torch_mock

    ptxemu.torch_mock.install()  # torch's own CUDA kernels have no PTX: they run on the host

#: Where a back-end's tensors live; any other back-end's are on the CPU.
BACKEND_DEVICES = {"cuda": "cuda", "triton": "cuda"}
if os.environ.get("TRITON_INTERPRET") == "1":  # tests/triton/test_interpreter.py starts such a process
    del BACKEND_DEVICES["triton"]


def device_of(backend: str) -> torch.device:
    return torch.device(BACKEND_DEVICES.get(backend, "cpu"))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """The shapes are small: a second thread costs more than it brings, and varies timings."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _exact_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    """fp32 is held to fp32's rule: torch's default lets a GPU's convolutions round operands to TF32, which
    the plain convolutions of an emulated run, done on the host, do not. Tests of TF32 ask for it."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(
    params=[pytest.param(name, marks=pytest.mark.gpu if name in BACKEND_DEVICES else ()) for name in BACKENDS]
)
def backend(request: pytest.FixtureRequest) -> str:
    """Each back-end of this build in turn; one that cannot run here is skipped with its own reason."""
    name: str = request.param
    reason = BACKENDS[name].refusal(device_of(name), torch.float32)
    if reason is not None:
        pytest.skip(f"back-end '{name}': {reason}")
    return name


@pytest.fixture
def device(backend: str) -> torch.device:
    return device_of(backend)
