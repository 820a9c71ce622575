"""Helpers for test suites that run CUDA code in the emulator.

`compile_ptx` and `compile_program` run nvcc; the ``requires_*`` marks skip a test with a reason where its
tools are missing.  As a pytest plugin (``pytest_plugins = ["ptxemu.testing"]``) the module offers the fixture
``stand_in``, which runs a command, a piece of Python or another pytest on the stand-in device::

    @requires_nvcc
    def test_my_op(stand_in):
        stand_in.python("import torch; assert torch.cuda.is_available()")
        stand_in.pytest("tests/test_my_op.py", "-m", "emulated", race=True)
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from . import device, toolchain
from .nvcc import compile_program, compile_ptx


def _requires(*programs: str) -> pytest.MarkDecorator:
    missing = [program for program in programs if not toolchain.have(program)]
    return pytest.mark.skipif(bool(missing), reason=f"not on PATH: {', '.join(missing)}")


def _requires_module(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"{name} is not installed")


requires_gxx = _requires("g++")
requires_nvcc = _requires("nvcc", "g++")
requires_triton = _requires_module("triton")

__all__ = [
    "StandIn",
    "compile_program",
    "compile_ptx",
    "requires_gxx",
    "requires_nvcc",
    "requires_triton",
    "stand_in",
]


class StandIn:
    """Runs programs on the stand-in device and checks that they end as expected."""

    def run(
        self,
        command: Sequence[str | Path],
        *,
        expect: int = 0,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> str:
        """Run a command with `options` of `device.DeviceOptions`; returns stdout and stderr together."""
        settings = device.DeviceOptions(**options)
        result = device.run(command, settings, env=env, timeout=timeout)
        output = result.stdout + result.stderr
        assert result.returncode == expect, f"exit status {result.returncode}, expected {expect}:\n{output}"
        return output

    def python(self, code: str, **kwargs: Any) -> str:
        """Run Python source text; keyword arguments as for `run`."""
        return self.run([sys.executable, "-c", code], **kwargs)

    def pytest(self, *arguments: str, **kwargs: Any) -> str:
        """Run pytest in a process that has the device; keyword arguments as for `run`."""
        return self.run([sys.executable, "-m", "pytest", *arguments], **kwargs)


@pytest.fixture(scope="session")
def stand_in() -> StandIn:
    """The stand-in device; skips where it cannot be built."""
    for program in ("nvcc", "g++", "nm"):
        if not toolchain.have(program):
            pytest.skip(f"{program} is not on PATH: the stand-in device cannot be built")
    device.build()
    return StandIn()
