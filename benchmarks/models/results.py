"""The results file: read, merged with new cells, written in one piece."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.models import machine

FOLDER = Path(__file__).resolve().parents[1] / "results"
FORMAT = 1

Results = dict[str, Any]


def path_here() -> Path:
    """The results file of this machine."""
    return FOLDER / f"{machine.slug(machine.device())}.json"


def load(path: Path) -> Results:
    """A results file, or an empty one for this machine where there is none.

    Raises:
        ValueError: the file is no results file of this format.
    """
    if not path.exists():
        return {"format": FORMAT, "device": machine.device(), "cells": {}}
    try:
        results = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: must be JSON; {error}") from None
    if not isinstance(results, dict) or results.get("format") != FORMAT or "cells" not in results:
        raise ValueError(f"{path}: must be a results file of format {FORMAT}")
    return results


def add(path: Path, cell: str, measured: dict[str, Any]) -> None:
    """Put one cell into the file, replacing an older measurement of it."""
    results = load(path)
    results["cells"][cell] = measured
    write_atomically(path, (json.dumps(_rounded(results), indent=1) + "\n").encode())


def write_atomically(path: Path, content: bytes) -> None:
    """Write beside ``path``, then rename: a reader sees the old file or the new one, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(name, path.stat().st_mode & 0o777 if path.exists() else 0o644)  # mkstemp's is 0600
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _rounded(value: Any) -> Any:
    """Six significant digits: more than a clock gives, and a file that diffs well."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value
