"""The host compiler and the CUDA toolkit: which ones, with which flags, and how to run them."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .errors import ToolError

# the instruction sets that runtime/vec_avx512.hpp uses
AVX512_FEATURES = frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vpopcntdq"})
ISA_FLAGS = {
    "avx512": ["-march=native"],
    "generic": ["-march=native", "-mno-avx512f", "-ftree-vectorize", "-fvect-cost-model=unlimited"],
    "sse2": ["-march=x86-64", "-ftree-vectorize", "-fvect-cost-model=unlimited"],
}
# Lanes are accessed through pointers of other types; floats must be what PTX says, without contraction.
BASE_FLAGS = [
    "-std=c++17",
    "-fPIC",
    "-ffp-contract=off",
    "-fno-strict-aliasing",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-w",
]
ERROR_TAIL = 6000  # characters of a compiler's output that go into an error message


@functools.cache
def cpu_features() -> frozenset[str]:
    """The CPU's feature flags as Linux names them; empty where they cannot be read."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return frozenset()
    match = re.search(r"^flags\s*:(.*)$", text, re.M)
    return frozenset(match.group(1).split()) if match else frozenset()


def isa() -> str:
    """How lane vectors are built: PTXEMU_ISA, else avx512 where the CPU has it, else generic.

    Raises:
        ToolError: PTXEMU_ISA is none of avx512, generic, sse2.
    """
    name = os.environ.get("PTXEMU_ISA") or ("avx512" if cpu_features() >= AVX512_FEATURES else "generic")
    if name not in ISA_FLAGS:
        raise ToolError(f"PTXEMU_ISA must be one of {', '.join(ISA_FLAGS)}, got {name!r}")
    return name


def compile_flags() -> list[str]:
    """g++ flags of the runtime library and of generated code."""
    return [*BASE_FLAGS, *ISA_FLAGS[isa()]]


def generated_code_flags() -> list[str]:
    """g++ optimisation flags of generated code: PTXEMU_OPT, default -O1."""
    return os.environ.get("PTXEMU_OPT", "-O1").split()


def have(program: str) -> bool:
    return shutil.which(program) is not None


def run(command: Sequence[str | Path]) -> str:
    """Run a program and return its standard output.

    Raises:
        ToolError: it is not installed or fails; with its command line and the end of its error output.
    """
    words = [str(word) for word in command]
    try:
        result = subprocess.run(words, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise ToolError(f"{words[0]} is not installed (needed for: {' '.join(words)})") from None
    if result.returncode:
        raise ToolError(f"{' '.join(words)}\n{result.stderr[-ERROR_TAIL:]}")
    return result.stdout


def start(command: Sequence[str | Path]) -> subprocess.Popen[str]:
    """Start a program, for `finish`."""
    return subprocess.Popen([str(word) for word in command], stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> None:
    """Wait for a started program; raises ToolError as `run` does."""
    _, errors = process.communicate()
    if process.returncode:
        raise ToolError(errors[-ERROR_TAIL:])


@functools.cache
def cuda_root() -> Path:
    """The CUDA toolkit's folder, as nvcc reports it (nvcc on PATH may be a link or a wrapper script).

    Raises:
        ToolError: nvcc is not installed or does not say.
    """
    if not have("nvcc"):
        raise ToolError("nvcc is not on PATH: the CUDA toolkit is needed")
    report = subprocess.run(
        ["nvcc", "--dryrun", "-x", "cu", os.devnull], capture_output=True, text=True, check=False
    )
    match = re.search(r"^#\$ TOP=(.*)$", report.stderr, re.M)
    if not match:
        raise ToolError(f"nvcc --dryrun does not name the toolkit's folder:\n{report.stderr[-ERROR_TAIL:]}")
    return Path(match.group(1).strip()).resolve()


def cuda_include() -> Path:
    """The folder of cuda_runtime_api.h."""
    return _first_existing(
        [
            cuda_root() / "targets" / "x86_64-linux" / "include",
            cuda_root() / "include",
        ],
        "cuda_runtime_api.h",
    )


def cuda_runtime_library() -> Path:
    """The real libcudart.so.13, whose symbols the stand-in must offer: the toolkit's, or torch's own."""
    site_packages = Path(sys.prefix) / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    folders = [
        cuda_root() / "targets" / "x86_64-linux" / "lib",
        cuda_root() / "lib64",
        site_packages / "site-packages" / "nvidia" / "cu13" / "lib",
    ]
    return _first_existing(folders, "libcudart.so.13") / "libcudart.so.13"


def _first_existing(folders: Sequence[Path], name: str) -> Path:
    for folder in folders:
        if (folder / name).exists():
            return folder
    raise ToolError(f"{name} not found in {', '.join(map(str, folders))}")
