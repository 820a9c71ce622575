"""The table of docs/bottleneck.md, from the code that chooses.

``python -m tests.compile.bottleneck_table`` writes it.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "bottleneck.md"
FIRST_LINE = "| block |"


def printed() -> str:
    """What bottleneck_table.cpp says. nvcc compiles it, since it knows where CUDA's headers are."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        raise FileNotFoundError("nvcc is not on PATH")
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "table"
        source = Path(__file__).with_suffix(".cpp")
        subprocess.run(
            [nvcc, "-std=c++20", f"-I{ROOT / 'csrc'}", str(source), "-o", str(program)], check=True
        )
        return subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout


def with_table(document: str, table: str) -> str:
    """``document`` with the table that begins with FIRST_LINE replaced."""
    lines = document.splitlines(keepends=True)
    first = next(i for i, line in enumerate(lines) if line.startswith(FIRST_LINE))
    last = next((i for i in range(first, len(lines)) if not lines[i].startswith("|")), len(lines))
    return "".join([*lines[:first], table, *lines[last:]])


if __name__ == "__main__":
    DOCUMENT.write_text(with_table(DOCUMENT.read_text(), printed()))
