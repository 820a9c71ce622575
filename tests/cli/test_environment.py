"""One table of environment variables, and nothing read beside it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fusedres._build import build_info
from fusedres.cli.environment import VARIABLES

ROOT = Path(__file__).parents[2]
#: A variable is a quoted name on its own: macros of the C++ sources are not quoted.
QUOTED = re.compile(r'"(FUSEDRES_[A-Z_]+)"')


def test_every_variable_that_is_read_is_in_the_table() -> None:
    folders = (ROOT / "fusedres", ROOT / "csrc", ROOT / "build_support")
    sources = [p for folder in folders for p in folder.rglob("*") if p.suffix in {".py", ".cpp", ".h", ".cu"}]
    read = {
        name for p in sources if p.name != "environment.py" for name in QUOTED.findall(p.read_text("utf-8"))
    }
    assert read <= {variable.name for variable in VARIABLES}


def test_the_readme_has_the_table() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = [f"| `{v.name}` | {v.read} | {v.values} | {v.meaning} |" for v in VARIABLES]
    assert [row for row in rows if row not in readme] == []


@pytest.mark.parametrize("page", ["README.md", "docs/design.md"])
def test_every_page_is_named(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = {path.name for path in (ROOT / "docs").glob("*.md")} - {Path(page).name}
    assert sorted(name for name in named if name not in text) == []


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("FUSEDRES_BACKEND", "zzz", "must be one of 'auto', 'reference', 'cpu', 'cuda', 'triton'; got 'zzz'"),
        ("FUSEDRES_COMPOSITION", "zzz", "must be one of 'auto', 'plain', "),
        ("FUSEDRES_PRECISION", "zzz", "must be one of 'default', 'fast'; got 'zzz'"),
        ("FUSEDRES_AUTOTUNE", "yes", "must be 0 or 1; got 'yes'"),
        ("FUSEDRES_CPU_ISA", "sse", "must be portable, avx2 or avx512; got sse"),
        ("FUSEDRES_CPU_POOL", "abc", "must be a number of megabytes, 0 or more; got abc"),
    ],
)
def test_a_value_that_is_refused_ends_a_command_in_a_line(name: str, value: str, rule: str) -> None:
    if name.startswith("FUSEDRES_CPU") and "_C" not in build_info()["loaded"]:
        pytest.skip("no extension reads it")
    done = subprocess.run(
        [sys.executable, "-m", "fusedres", "info"],
        env={**os.environ, name: value}, cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"error: {name}: {rule}") and done.stderr.count("\n") == 1


def test_a_value_that_is_refused_can_be_overruled() -> None:
    """It is refused where it would hold: not by the import, and not where something beats it."""
    program = """
import fusedres, torch
block = fusedres.FusedBasicBlock(8, 8).eval()
x = torch.randn(1, 8, 4, 4)
with fusedres.backend("reference"):
    block(x)
try:
    block(x)
except ValueError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "FUSEDRES_BACKEND": "zzz"}, cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.stdout.startswith("FUSEDRES_BACKEND: must be one of 'auto', "), done.stderr
