"""Run nvcc: CUDA files to PTX and to programs, cached by their preprocessed text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from . import cache, toolchain


def compile_ptx(
    source: str | Path,
    arch: str = "sm_80",
    *,
    defines: Sequence[str] = (),
    include: Sequence[str | Path] = (),
    flags: Sequence[str] = (),
) -> str:
    """PTX of a CUDA file (a Path) or of CUDA text, with line information; cached by its preprocessed text.

    Raises:
        ToolError: nvcc is missing or fails; its errors are in the message.
    """
    folder = cache.cache_dir() / "ptx"
    folder.mkdir(exist_ok=True)
    if isinstance(source, str):
        path = folder / f"{cache.digest(source)}.cu"
        if not path.exists():
            cache.write_whole(path, source)
    else:
        path = source.resolve()
    options = [
        f"-arch={arch}",
        "-std=c++17",
        "-lineinfo",
        *(f"-D{define}" for define in defines),
        *(f"-I{path}" for path in include),
        *flags,
    ]
    preprocessed = toolchain.run(["nvcc", "-E", *options, path])
    target = folder / f"{path.stem}-{cache.digest(preprocessed, *options)}.ptx"
    if not target.exists():
        cache.write_whole(target, toolchain.run(["nvcc", "-ptx", *options, path, "-o", "-"]))
    return target.read_text()


def compile_program(source: Path, arch: str, *, flags: Sequence[str] = ()) -> Path:
    """An executable with PTX for `arch` ("90a") that uses the shared CUDA runtime; cached by content."""
    folder = cache.cache_dir() / "programs"
    folder.mkdir(exist_ok=True)
    options = [
        "-std=c++17",
        f"-gencode=arch=compute_{arch},code=compute_{arch}",
        "--cudart",
        "shared",
        *flags,
    ]
    preprocessed = toolchain.run(["nvcc", "-E", *options, source])
    program = folder / f"{source.stem}-{cache.digest(preprocessed, *options)}"
    if not program.exists():
        unfinished = program.with_suffix(".tmp")
        toolchain.run(["nvcc", *options, source, "-o", unfinished])
        unfinished.rename(program)
    return program
