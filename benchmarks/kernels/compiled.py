"""What a compiler made of a kernel: registers, spills, the machine instructions of its main loop."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple


class Usage(NamedTuple):
    """Registers a thread, and bytes of stack and of local memory; spills live on the stack."""

    registers: int
    stack: int
    local: int


def find_cuobjdump() -> str | None:
    """The toolkit's, or the one that Triton brings."""
    found = shutil.which("cuobjdump")
    if found is None and importlib.util.find_spec("triton") is not None:
        import triton

        found = triton.knobs.nvidia.cuobjdump.path
    return found


def _cuobjdump(*arguments: str | Path) -> str:
    program = find_cuobjdump()
    if program is None:
        raise FileNotFoundError("cuobjdump is not on PATH, and Triton, which brings one, is not installed")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=True).stdout


def architectures(file: Path) -> list[str]:
    """Those that an object or a shared library holds machine code for, as 80 and 90."""
    return sorted(set(re.findall(r"\.sm_(\w+)\.cubin", _cuobjdump("--list-elf", file))), key=int)


def resource_usage(file: Path, architecture: str | None = None) -> dict[str, Usage]:
    """Each kernel of a cubin, an object or a shared library, by its mangled name.

    Of several architectures in a file one must be named: a kernel has the same name in each.
    """
    text = _cuobjdump(*_only(architecture), "--dump-resource-usage", file)
    found = re.findall(r"Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", text)
    usage = {name: Usage(*map(int, numbers)) for name, *numbers in found}
    if len(usage) != len(found):
        raise ValueError(f"{file} holds several architectures: name one")
    return usage


def machine_code(file: Path, kernel: str, architecture: str | None = None) -> list[tuple[int, str]]:
    """(address, text) of each of a kernel's instructions, of one architecture."""
    text = _cuobjdump(*_only(architecture), "-sass", "-fun", kernel, file)
    found = re.findall(r"^\s*/\*([0-9a-f]{4,})\*/\s+(.+?)\s*;", text, re.MULTILINE)
    return [(int(address, 16), instruction) for address, instruction in found]


def _only(architecture: str | None) -> tuple[str, ...]:
    return ("-arch", f"sm_{architecture}") if architecture else ()


def carried_ptx(file: Path) -> str:
    """The PTX that a library carries."""
    return _cuobjdump("-ptx", file)


def assemble(ptx: str, capability: int, cubin: Path) -> None:
    """PTX to machine code, by the assembler that Triton brings and as it calls it."""
    import triton

    source = cubin.with_suffix(".ptx")
    source.write_text(ptx)
    command = [triton.knobs.nvidia.ptxas.path, f"--gpu-name=sm_{capability}", source, "-o", cubin]
    subprocess.run(command, capture_output=True, text=True, check=True)


def ptx_code(listing: str) -> dict[str, list[tuple[int, str]]]:
    """(line, text) of each instruction and label of each kernel of a PTX text."""
    kernels: dict[str, list[tuple[int, str]]] = {}
    body: list[tuple[int, str]] = []
    for number, line in enumerate(listing.splitlines()):
        text = line.partition("//")[0]
        entry = re.search(r"\.entry\s+(\w+)", text)
        if entry:
            body = kernels.setdefault(entry[1], [])
        elif re.match(r"\s*(\$\w+:|@|[a-z])", text):
            body.append((number, text.strip()))
    return kernels


def with_targets(code: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """PTX with each branch's label replaced by its place, as machine code has it, and labels left out."""
    places = {text[:-1]: place for place, text in code if text.startswith("$") and text.endswith(":")}
    resolved = []
    for place, text in code:
        branch = re.search(r"\bbra\S*\s+(\$\w+)", text)
        if branch and branch[1] in places:
            resolved.append((place, f"BRA 0x{places[branch[1]]:x}"))
        elif not text.startswith("$"):
            resolved.append((place, text))
    return resolved


def main_loop(code: list[tuple[int, str]], product: str = "HMMA") -> list[str]:
    """The shortest loop among those with most matrix instructions."""
    best: tuple[int, int] = (0, 0)
    body: list[str] = []
    for end, instruction in code:
        target = re.search(r"\bBRA\b.*?0x([0-9a-f]+)", instruction)
        if target is None or int(target[1], 16) > end:
            continue
        loop = [text for address, text in code if int(target[1], 16) <= address <= end]
        rank = (sum(product in text for text in loop), -len(loop))
        if rank > best:
            best, body = rank, loop
    return body


def instructions_a_product(code: list[tuple[int, str]], product: str = "HMMA") -> float | None:
    """Instructions of the main loop for each of its matrix instructions; None without any."""
    loop = main_loop(code, product)
    products = sum(product in text for text in loop)
    return len(loop) / products if products else None
