"""The stand-in CUDA device: build it, and run programs on it.

It is a libcudart.so.13 and a libcuda.so.1 that a program gets by LD_PRELOAD: device memory is host memory,
streams run at once, kernels run from their PTX in the emulator.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import cache, toolchain
from .build import LIBRARY_NAME, PACKAGE, RUNTIME, runtime_library

SOURCES = PACKAGE / "standin"
ARCHITECTURES = (75, 80, 90)
DRIVER_SOURCES = "driver_*.cpp"  # all others make the runtime library
RUNTIME_NAME, DRIVER_NAME = "libcudart.so.13", "libcuda.so.1"
# torch links against these, and the stand-in does not implement them
MISSING_DRIVER_FUNCTIONS = ("cuLinkAddData_v2", "cuLinkComplete", "cuLinkCreate_v2")
EXPORTS = f"{RUNTIME_NAME} {{ global: cuda*; __cuda*; ptxemu_*; local: *; }};\n"


@dataclass(frozen=True)
class DeviceOptions:
    """What the device is and what it checks; each option is a PTXEMU_ variable of the README.

    Attributes:
        sm: compute capability without its dot, 75, 80 or 90.
        processors: streaming multiprocessors, None for those of a T4, A100 or H100; with few a small launch is
            laid out like a large one.
        race: report shared memory races.
        check_init: with `race`, report reads of shared memory that nothing wrote.
        seed: other than 0, randomises the order of warps.
        threads: CTAs that run at once.
        counters: file to which each launch's counters are appended, for `ptxemu.read_log`.
        list_only: note launches with their grids in `counters`, but run none; device memory that nothing else
            writes takes no room, so a network can be listed at any batch size.
        log: print each launch on stderr.
        caching_allocator: keep torch's caching allocator.  CUDA graphs need it; without it every tensor is an
            allocation of its own, so that bounds are exact.
    """

    sm: int = 90
    processors: int | None = None
    race: bool = False
    check_init: bool = False
    seed: int = 0
    threads: int = 2
    counters: Path | None = None
    list_only: bool = False
    log: bool = False
    caching_allocator: bool = False

    def __post_init__(self) -> None:
        if self.sm not in ARCHITECTURES:
            raise ValueError(f"sm must be one of {ARCHITECTURES}, got {self.sm}")


def build() -> Path:
    """The folder of the device's libraries and of its ptxas; compiles them if the cache lacks them.

    Raises:
        ToolError: g++ or the CUDA toolkit is missing, or a compilation fails.
    """
    runtime = runtime_library()
    include, real_runtime = toolchain.cuda_include(), toolchain.cuda_runtime_library()
    sources = sorted(path for path in SOURCES.iterdir() if path.is_file())
    flags = [*toolchain.compile_flags(), "-O1", f"-I{include}", f"-I{RUNTIME}"]
    contents = [path.read_bytes() for path in [*sources, *sorted(RUNTIME.glob("*.hpp"))]]
    key = cache.digest(*contents, str(runtime), str(real_runtime), " ".join(flags))
    folder = cache.cache_dir() / f"device-{key}"
    if not folder.exists():
        with cache.lock(folder.name):
            if not folder.exists():
                with cache.new_folder(folder) as scratch:
                    _build_runtime_stand_in(scratch, flags, runtime, real_runtime)
                    _build_driver_stand_in(scratch, flags)
                    shutil.copy(SOURCES / "ptxas", scratch / "ptxas")
                    (scratch / "ptxas").chmod(0o755)
    return folder


def environment(
    options: DeviceOptions | None = None, base: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The environment (`base`, default this process's) in which a program sees the device."""
    options = options or DeviceOptions()
    folder = build()
    result = dict(os.environ if base is None else base)
    search_path = [str(PACKAGE.parent), result.get("PYTHONPATH", "")]  # programs may import ptxemu.torch_mock
    preload = [str(folder / RUNTIME_NAME), str(folder / DRIVER_NAME), result.get("LD_PRELOAD", "")]
    result.update(
        LD_PRELOAD=":".join(filter(None, preload)),
        PYTHONPATH=":".join(filter(None, search_path)),
        PTXEMU_ROOT=str(PACKAGE.parent),
        PTXEMU_PYTHON=sys.executable,
        PTXEMU_SM=str(options.sm),
        PTXEMU_RACE=str(int(options.race)),
        PTXEMU_CHECK_INIT=str(int(options.check_init)),
        PTXEMU_SEED=str(options.seed),
        PTXEMU_THREADS=str(options.threads),
        PTXEMU_LIST=str(int(options.list_only)),
        PTXEMU_LOG=str(int(options.log)),
        TRITON_PTXAS_PATH=str(folder / "ptxas"),
        TRITON_PTXAS_BLACKWELL_PATH=str(folder / "ptxas"),
        TRITON_LIBCUDA_PATH=str(folder),
    )
    if options.processors is not None:
        result["PTXEMU_PROCESSORS"] = str(options.processors)
    if options.counters:
        result["PTXEMU_COUNTERS"] = str(options.counters)
    if not options.caching_allocator:
        result["PYTORCH_NO_CUDA_MEMORY_CACHING"] = "1"
    return result


def run(
    command: Sequence[str | Path],
    options: DeviceOptions | None = None,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program on the device and capture its output; `env` adds to the environment."""
    return subprocess.run(
        [str(word) for word in command],
        env={**environment(options), **(env or {})},
        cwd=cwd,
        timeout=timeout,
        capture_output=True,
        text=True,
        check=False,
    )


# ---------------------------------------------------------------- building


def _build_runtime_stand_in(folder: Path, flags: Sequence[str], runtime: Path, real_runtime: Path) -> None:
    objects = []
    running = []
    for source in sorted(set(SOURCES.glob("*.cpp")) - set(SOURCES.glob(DRIVER_SOURCES))):
        target = folder / f"{source.stem}.o"
        running.append(toolchain.start(["g++", *flags, "-c", source, "-o", target]))
        objects.append(target)
    for process in running:
        toolchain.finish(process)
    implemented = set[str]().union(*(_defined_symbols(target) for target in objects))
    missing = _runtime_symbols(real_runtime) - implemented
    objects.append(_stubs(folder, "cudart_stubs", "ptxemu_unimplemented", sorted(missing)))
    exports = folder / "exports.map"
    exports.write_text(EXPORTS)
    toolchain.run(
        [
            "g++",
            "-shared",
            "-o",
            folder / RUNTIME_NAME,
            *objects,
            runtime.parent / LIBRARY_NAME,
            f"-Wl,-rpath,{runtime.parent}",
            f"-Wl,-soname,{RUNTIME_NAME}",
            f"-Wl,--version-script={exports}",
            "-ldl",
            "-lpthread",
        ]
    )


def _build_driver_stand_in(folder: Path, flags: Sequence[str]) -> None:
    objects = []
    for source in sorted(SOURCES.glob(DRIVER_SOURCES)):
        target = folder / f"{source.stem}.o"
        toolchain.run(["g++", *flags, "-c", source, "-o", target])
        objects.append(target)
    objects.append(_stubs(folder, "driver_stubs", "ptxemu_driver_unimplemented", MISSING_DRIVER_FUNCTIONS))
    toolchain.run(
        ["g++", "-shared", "-o", folder / DRIVER_NAME, *objects, f"-Wl,-soname,{DRIVER_NAME}", "-ldl"]
    )


def _stubs(folder: Path, name: str, report: str, functions: Sequence[str]) -> Path:
    """Compile functions that only call ``report("their name")``."""
    source, target = folder / f"{name}.c", folder / f"{name}.o"
    body = "".join(f'int {function}(void) {{ return {report}("{function}"); }}\n' for function in functions)
    source.write_text(f"int {report}(const char *);\n{body}")
    toolchain.run(["gcc", "-O1", "-fPIC", "-w", "-c", source, "-o", target])
    return target


def _defined_symbols(target: Path) -> set[str]:
    report = toolchain.run(["nm", "--defined-only", "-g", target])
    return {line.split()[-1] for line in report.splitlines() if line}


def _runtime_symbols(library: Path) -> set[str]:
    report = toolchain.run(["nm", "-D", "--defined-only", library])
    return set(re.findall(r"\b[TW] (\w+)@@libcudart", report))
