"""The emulator catches each kind of bug, planted in a copy of our kernels, and passes them as they are.

A program of ``planted/`` runs one kernel on arrays of exactly its size and compares with plain loops. A bug
is one replacement in one header, whose copy the compiler finds before the original.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cuda.conftest import ROOT, Emulator

pytestmark = pytest.mark.emulated

PROGRAMS = Path(__file__).parent / "planted"
SOURCES = ROOT / "csrc"

GEMM, ROWS = "cuda/conv/gemm_kernel.cuh", "cuda/conv/row_source.cuh"
EPILOGUE, REDUCE, WALK = "cuda/conv/epilogue.cuh", "cuda/common/reduce.cuh", "cuda/common/rows.h"

#: What the emulator says of a missing barrier or wait (which of the two depends on the order of warps), and
#: of a missing bound.
UNORDERED = r"shared memory race|read of uninitialised shared memory"
OUTSIDE = r"of \d+ bytes at 0x[0-9a-f]+ out of bounds"


class Bug(NamedTuple):
    """In ``header`` the text ``old`` becomes ``new``; the emulator then says ``found``."""

    name: str
    program: str
    header: str
    old: str
    new: str
    found: str


BUGS = (
    Bug(
        "no barrier before a fold is read",
        *("stats", REDUCE),
        "scratch[at] = value;\n    __syncthreads();",
        "scratch[at] = value;",
        UNORDERED,
    ),
    Bug(
        "one row of a fold is not written",
        *("stats", REDUCE),
        "if (threadIdx.y >= half &&",
        "if (threadIdx.y > half &&",
        "read of uninitialised shared memory",
    ),
    Bug(
        "rows are read past the last",
        *("stats", WALK),
        "for (; row + (kRows - 1) * walk.step < rows;",
        "for (; row < rows;",
        OUTSIDE,
    ),
    Bug(
        "no barrier in the main loop",
        *("conv", GEMM),
        "    __syncthreads();  // the stage is there",
        "    // the stage is there",
        UNORDERED,
    ),
    Bug(
        "no barrier between the main loop and its results",
        *("conv", GEMM),
        "  __syncthreads();  // the last stage",
        "  // the last stage",
        "shared memory race",
    ),
    Bug("no wait for a stage", *("conv", GEMM), "    cp_async_wait<kStages - 2>();\n", "", UNORDERED),
    Bug(
        "a wait that leaves one stage too many",
        *("conv", GEMM),
        "cp_async_wait<kStages - 2>",
        "cp_async_wait<kStages - 1>",
        UNORDERED,
    ),
    Bug(
        "pixels are read past the last",
        *("conv", ROWS),
        "if (pixel >= c.pixels) h_[i] = kNowhere;",
        "",
        OUTSIDE,
    ),
    Bug(
        "pixels are written past the last",
        *("conv", EPILOGUE),
        "rows(min(Tile::kM, p.pixel_class[place.pixel_class].pixels - place.first_pixel))",
        "rows(Tile::kM)",
        OUTSIDE,
    ),
    Bug(
        "channels are written past the last",
        *("conv", EPILOGUE),
        "count(min(kPerChunk<T>, p.columns - place.first_column - chunk * kPerChunk<T>))",
        "count(kPerChunk<T>)",
        OUTSIDE,
    ),
)

#: Compiled and translated for `make test`: one of each kind.
QUICK = ("no barrier before a fold is read", "rows are read past the last", "no wait for a stage")


def output_of(program: str, emulator: Emulator, *folders: Path, status: int) -> str:
    """What the program says on the stand-in device, headers in ``folders`` before ours."""
    from ptxemu.testing import compile_program

    flags = ["-std=c++20", *(f"-I{folder}" for folder in (*folders, SOURCES))]
    built = compile_program(PROGRAMS / f"{program}.cu", "80", flags=flags)
    said: str = emulator.device.run([built], sm=80, race=True, check_init=True, expect=status, timeout=600)
    return said


@pytest.mark.parametrize("program", ["stats", "conv"])
def test_kernel_as_it_is(program: str, emulator: Emulator) -> None:
    assert "\n0 of" in "\n" + output_of(program, emulator, status=0)


@pytest.mark.parametrize(
    "bug",
    [pytest.param(b, id=b.name, marks=() if b.name in QUICK else pytest.mark.slow) for b in BUGS],
)
def test_planted(bug: Bug, emulator: Emulator, tmp_path: Path) -> None:
    source = (SOURCES / bug.header).read_text()
    assert source.count(bug.old) == 1, f"{bug.header} has changed: {bug.old!r} must be in it once"
    copy = tmp_path / bug.header
    copy.parent.mkdir(parents=True)
    copy.write_text(source.replace(bug.old, bug.new))
    said = output_of(bug.program, emulator, tmp_path, status=1)
    assert re.search(bug.found, said), said
