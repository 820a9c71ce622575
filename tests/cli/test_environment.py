"""One table of environment variables, and nothing read beside it."""

from __future__ import annotations

import re
from pathlib import Path

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
    assert [v.name for v in VARIABLES if f"`{v.name}`" not in readme] == []
