"""``pytest -m gpu`` in a process of its own, and what came of it."""

from __future__ import annotations

import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from benchmarks.models.machine import ROOT


def run(folder: Path, arguments: list[str]) -> dict[str, Any]:
    """Counts, failures by name with their first line, and the log's path; the log is written as it comes."""
    log, results = folder / "gpu-tests.log", folder / "gpu-tests.xml"
    results.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "--tb=short", f"--junitxml={results}"]
    began = time.monotonic()
    with log.open("w") as output:
        status = subprocess.run(
            [*command, *arguments], cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, check=False
        ).returncode
    found = parse(results) if results.exists() else {"passed": 0, "failed": 0, "skipped": 0, "failures": []}
    return found | {
        "status": status,
        # 5: nothing ran. A crash of the interpreter leaves no counts.
        "green": status == 0 and found["passed"] > 0,
        "seconds": round(time.monotonic() - began, 1),
        "log": str(log),
    }


def parse(results: Path) -> dict[str, Any]:
    """The counts of a JUnit file."""
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    failures = []
    for case in ElementTree.parse(results).getroot().iter("testcase"):
        wrong = [child for child in case if child.tag in ("failure", "error")]
        if wrong:
            counts["failed"] += 1
            message = wrong[0].get("message", "").splitlines()
            name = f"{case.get('classname')}::{case.get('name')}"
            failures.append({"test": name, "message": message[0][:300] if message else ""})
        else:
            counts["skipped" if case.find("skipped") is not None else "passed"] += 1
    return counts | {"failures": failures}
