"""What this build compiles: resolved once, printed, and kept in the package for ``build_info()``."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import sysconfig
from dataclasses import asdict, dataclass, field
from pathlib import Path

from build_support import cuda

_AVX2 = ("-mavx2", "-mfma", "-mf16c")
_AVX512 = (*_AVX2, "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mprefer-vector-width=512")

#: Suffix of a CPU source (``affine_add_act_avx2.cpp``) -> the flags it alone gets on x86-64. Everything
#: else is compiled for the baseline. The order is the link order: see ``commands.BuildExt``.
ISA_FLAGS: dict[str, tuple[str, ...]] = {
    "_avx2": _AVX2,
    "_avx512": _AVX512,
    "_avx512bf16": (*_AVX512, "-mavx512bf16"),
    "_amx": (*_AVX512, "-mavx512bf16", "-mamx-tile", "-mamx-bf16"),
}

#: torch 2.11 is the oldest release whose stable ABI has what is called (from_blob with a deleter).
STABLE_ABI = ("-DTORCH_STABLE_ONLY", "-DTORCH_TARGET_VERSION=0x020b000000000000")

#: Without contraction ``y * s + t`` is rounded twice on every ISA: the same bits from each of them, and 0
#: exactly where t = -y * s, as for a constant channel (an FMA would return the product's rounding error).
CXX_FLAGS = (
    *("-O3", "-g0", "-std=c++20", "-fvisibility=hidden", "-ffp-contract=off", *STABLE_ABI),
    *("-Wall", "-Wno-psabi"),  # psabi: wide vectors are passed between inlined functions alone
)


@dataclass
class BuildPlan:
    """What was found and what follows from it."""

    extension: bool
    extension_reason: str
    compiler: str | None = None
    torch: str | None = None
    cxx_flags: tuple[str, ...] = CXX_FLAGS
    isa_flags: dict[str, tuple[str, ...]] = field(default_factory=dict)
    cuda: bool = False
    cuda_reason: str = "the extension is not built"
    cuda_archs: str | None = None
    cuda_home: str | None = None
    cuda_library_dirs: tuple[str, ...] = ()

    def describe(self) -> str:
        """One line a fact, for the build's log."""
        facts = asdict(self)
        width = max(map(len, facts))
        lines = [f"  {name:<{width}}  {value}" for name, value in facts.items()]
        return "\n".join(["fusedres build:", *lines])


def find_compiler(environ: dict[str, str]) -> str | None:
    """The C++ compiler: CXX, else the one Python was built with, else ``c++``, ``g++``, ``clang++``.

    Raises:
        RuntimeError: CXX names a program that is not there; a wish that cannot be met is an error.
    """
    if environ.get("CXX"):
        program = shlex.split(environ["CXX"])[0]
        found = shutil.which(program, path=environ.get("PATH"))
        if found is None:
            raise RuntimeError(
                f"fusedres: CXX must name a C++ compiler; got {environ['CXX']!r}, which is not found"
            )
        return found
    python_cxx = (sysconfig.get_config_var("CXX") or "").split()
    candidates = [*python_cxx[:1], "c++", "g++", "clang++"]
    found_all = [shutil.which(name, path=environ.get("PATH")) for name in candidates]
    return next((path for path in found_all if path), None)


def isa_of(source: str) -> str:
    """The ISA suffix of a source file (``_avx2``), or ``""`` for the baseline."""
    stem = Path(source).stem
    return next((suffix for suffix in ISA_FLAGS if stem.endswith(suffix)), "")


def has_isa_variants(machine: str) -> bool:
    return machine in ("x86_64", "AMD64")


def cpu_sources(root: Path, machine: str) -> list[str]:
    """``csrc/cpu/**/*.cpp``, baseline first, then by ascending ISA; no ISA files where they mean nothing."""
    order = ["", *ISA_FLAGS]
    paths = sorted(str(path.relative_to(root)) for path in (root / "csrc" / "cpu").rglob("*.cpp"))
    kept = [path for path in paths if isa_of(path) == "" or has_isa_variants(machine)]
    return sorted(kept, key=lambda path: order.index(isa_of(path)))


def cuda_sources(root: Path) -> list[str]:
    """The CUDA extension's sources; empty where there is no kernel (``*.cu``) among them."""
    files = sorted((root / "csrc" / "cuda").rglob("*.c[pu]*"))
    paths = [str(path.relative_to(root)) for path in files if path.suffix in (".cpp", ".cu")]
    return paths if any(path.endswith(".cu") for path in paths) else []


def resolve(root: Path, environ: dict[str, str] | None = None) -> BuildPlan:
    """Decide what to build.

    Raises:
        RuntimeError: the extension is to be built and torch cannot be imported.
    """
    environ = dict(os.environ) if environ is None else environ
    if environ.get("FUSEDRES_NO_EXT", "0") not in ("", "0"):
        return BuildPlan(False, "FUSEDRES_NO_EXT is set: pure Python, on Triton (GPUs) and the reference")
    compiler = find_compiler(environ)
    if compiler is None:
        return BuildPlan(False, "no C++ compiler found: pure Python, on Triton (GPUs) and the reference")
    try:
        import torch
    except ImportError as error:
        raise RuntimeError(
            "fusedres: building the extension needs torch; install it first (pip install torch), build with "
            "isolation, or set FUSEDRES_NO_EXT=1 for a pure-Python install"
        ) from error
    plan = BuildPlan(True, "a C++ compiler and torch were found", compiler, str(torch.__version__))
    if has_isa_variants(platform.machine()):
        plan.isa_flags = ISA_FLAGS
    archs = environ.get("FUSEDRES_CUDA_ARCHS", "")
    if archs.lower() == "none":
        plan.cuda_reason = "FUSEDRES_CUDA_ARCHS is none"
        return plan
    toolkit, plan.cuda_reason = cuda.find_toolkit(torch.version.cuda, environ)
    if toolkit is not None and not cuda_sources(root):
        toolkit, plan.cuda_reason = None, f"{plan.cuda_reason}, but there are no CUDA sources"
    if toolkit is not None:
        plan.cuda, plan.cuda_home, plan.cuda_library_dirs = True, toolkit.home, toolkit.library_dirs
        plan.cuda_archs = archs or cuda.DEFAULT_ARCHS
    return plan
