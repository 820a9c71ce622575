"""Every environment variable that fusedres reads: the one table of them."""

from __future__ import annotations

from dataclasses import dataclass

from fusedres._build import build_info
from fusedres._settings import BACKEND, COMPOSITION, PRECISION, autotune
from fusedres.backends.cpu import pool
from fusedres.cli.console import UserError


@dataclass(frozen=True)
class Variable:
    """One variable: when it is read, what it may be, and what it does."""

    name: str
    read: str
    values: str
    meaning: str


VARIABLES = (
    Variable(
        "FUSEDRES_BACKEND",
        "import",
        "auto, reference, cpu, cuda, triton",
        "which back-end runs the kernel ops",
    ),
    Variable(
        "FUSEDRES_COMPOSITION",
        "import",
        "auto, plain, pointwise, stats, mainloop",
        "how a block's kernels are composed in training",
    ),
    Variable(
        "FUSEDRES_PRECISION",
        "import",
        "default, fast",
        "fast allows algorithms with a documented error of their own",
    ),
    Variable(
        "FUSEDRES_AUTOTUNE",
        "run",
        "0, 1",
        "how Triton's tiles are chosen: 0 by rule, 1 timed at first use; unset by plan, else by rule",
    ),
    Variable(
        "FUSEDRES_PLANS",
        "run",
        "a folder, or 0",
        "where measured plans are kept; 0 keeps and reads none; default: the user's cache folder",
    ),
    Variable(
        "FUSEDRES_CPU_ISA",
        "first use",
        "portable, avx2, avx512",
        "instruction set of the CPU kernels; default: the best there is",
    ),
    Variable(
        "FUSEDRES_CPU_POOL",
        "first use",
        "megabytes, or 0",
        "the most memory kept for the CPU's large outputs and scratch; 0 keeps none; default: an eighth "
        "of the machine's, at most 4096",
    ),
    Variable(
        "FUSEDRES_CUDA_ARCHS",
        "build",
        "torch's spelling, as 8.0+PTX;9.0; or none",
        "architectures that CUDA is compiled for",
    ),
    Variable("FUSEDRES_NO_EXT", "build", "0, 1", "1 installs pure Python, on Triton and the reference"),
)


def check_environment() -> None:
    """Have every variable read that is otherwise refused in the middle of a run.

    Raises:
        UserError: one has a value that it must not have.
    """
    try:
        for setting in (BACKEND, COMPOSITION, PRECISION):
            setting.get()
        autotune()
        if "_C" in build_info()["loaded"]:  # which reads FUSEDRES_CPU_ISA
            pool.usage()  # FUSEDRES_CPU_POOL
    except (ValueError, RuntimeError) as error:
        raise UserError(str(error)) from error
