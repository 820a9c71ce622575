"""The pool of large outputs (csrc/cpu/pool.*), alone and under sanitizers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = (ROOT / "tests/csrc/pool_program.cpp", ROOT / "csrc/cpu/pool.cpp", ROOT / "csrc/cpu/pages.cpp")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the pool is Linux's alone")


def built(folder: Path, *flags: str) -> Path:
    program = folder / "pool"
    command = [os.environ.get("CXX", "c++"), "-std=c++20", "-O1", "-g", "-pthread", *flags]
    command += [f"-I{ROOT / 'csrc'}", *map(str, SOURCES), "-o", str(program)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no C++ compiler")
    if done.returncode != 0 and any(library in done.stderr for library in ("libasan", "libtsan", "libubsan")):
        pytest.skip(f"the compiler has no sanitizer: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return program


@pytest.fixture(scope="module")
def on_guard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With AddressSanitizer, for which the pool poisons what nobody holds, and UBSan."""
    return built(tmp_path_factory.mktemp("asan"), "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def said(program: Path, mode: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(program), mode], capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("mode", ["rules", "threads", "forks"])
def test_nobody_shares_a_block(on_guard: Path, mode: str) -> None:
    done = said(on_guard, mode)
    assert (done.returncode, done.stdout) == (0, "ended\n"), done.stdout + done.stderr


@pytest.mark.parametrize("mode", ["use-after", "beyond"])
def test_the_guard_sees_what_does_not_belong_to_a_block(on_guard: Path, mode: str) -> None:
    done = said(on_guard, mode)
    assert done.returncode != 0 and "use-after-poison" in done.stderr


def test_a_block_cannot_be_given_back_twice(on_guard: Path) -> None:
    done = said(on_guard, "twice")
    assert done.returncode != 0 and "ended" not in done.stdout


def test_threads_do_not_race(tmp_path: Path) -> None:
    done = said(built(tmp_path, "-fsanitize=thread"), "threads")
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("ThreadSanitizer does not run on this kernel's layout of addresses")
    assert (done.returncode, done.stdout) == (0, "ended\n"), done.stdout + done.stderr
