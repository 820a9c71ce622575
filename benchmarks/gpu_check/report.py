"""The report: JSON with everything, and the same as Markdown to read."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

import fusedres
from benchmarks.gpu_check.contest import Outcome
from benchmarks.models.machine import commit
from benchmarks.models.results import write_atomically
from benchmarks.models.timing import spread
from fusedres.cli.machine import versions

FORMAT = 1

Report = dict[str, Any]


def begun(device: torch.device) -> Report:
    """A report of no results yet: when, what and where."""
    return {
        "format": FORMAT,
        "began": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "device": _device(device),
        "versions": versions() | {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()},
        "build": fusedres.build_info(),
        "tests": None,
        "benchmarks": [],
    }


def _device(device: torch.device) -> dict[str, Any]:
    if device.type != "cuda":
        return {"name": str(device)}
    properties = torch.cuda.get_device_properties(device)
    return {
        "name": properties.name,
        "compute capability": f"{properties.major}.{properties.minor}",
        "processors": properties.multi_processor_count,
        "memory_gib": round(properties.total_memory / 2**30, 1),
    }


def failures(report: Report) -> list[str]:
    """What is wrong, a line each; nothing where all is well."""
    found = []
    tests = report["tests"]
    if tests is not None and not tests["green"]:
        found.append(
            f"tests: {tests['failed']} failed, {tests['passed']} passed (exit status {tests['status']})"
        )
    for contest in report["benchmarks"]:
        if contest["error"] is not None:
            found.append(f"{contest['name']}: {contest['error'].strip().splitlines()[-1]}")
        elif not contest["passed"]:
            red = [p["name"] for p in contest["parity"] if not p["green"]]
            found.append(
                f"{contest['name']}: " + (f"no parity in {', '.join(red)}" if red else "not measured")
            )
    return found


def entry(outcome: Outcome) -> dict[str, Any]:
    """An outcome as the JSON keeps it."""
    found = asdict(outcome) | {"passed": outcome.passed}
    for kept, parity in zip(found["parity"], outcome.parity, strict=True):
        kept["green"] = parity.passed
    return found


def write(report: Report, folder: Path, name: str) -> tuple[Path, Path]:
    """``name``.md and ``name``.json, each in one piece; returns their paths."""
    paths = folder / f"{name}.md", folder / f"{name}.json"
    for path, text in zip(paths, (markdown(report), json.dumps(report, indent=1) + "\n"), strict=True):
        write_atomically(path, text.encode())
    return paths


def markdown(report: Report) -> str:
    device = ", ".join(
        f"{key} {value}" if key != "name" else value for key, value in report["device"].items()
    )
    wrong = failures(report)
    verdict = ["**Failed:**", "", *(f"- {line}" for line in wrong)] if wrong else ["**Everything passed.**"]
    lines = [f"# GPU check: {report['device']['name']}", "", *verdict, ""]
    lines += [f"- device: {device}", f"- commit: {report['commit']}, begun {report['began']}"]
    lines += [f"- versions: {', '.join(f'{name} {number}' for name, number in report['versions'].items())}"]
    lines += [f"- CUDA built for: {report['build'].get('cuda_archs', 'nothing')}", ""]
    lines += _tests(report["tests"])
    for contest in report["benchmarks"]:
        lines += _contest(contest)
    return "\n".join(lines).rstrip() + "\n"


def _tests(tests: dict[str, Any] | None) -> list[str]:
    if tests is None:
        return ["## Tests", "", "Not run.", ""]
    counts = f"{tests['passed']} passed, {tests['failed']} failed, {tests['skipped']} skipped"
    failed = [f"- `{f['test']}`: {f['message']}" for f in tests["failures"]]
    return ["## Tests", "", f"{counts} in {tests['seconds']} s.", "", *failed, *([""] if failed else [])]


def _contest(contest: dict[str, Any]) -> list[str]:
    lines = [f"## {contest['name']}", ""]
    if contest["error"] is not None:
        return [*lines, "```", contest["error"].strip(), "```", ""]
    for parity in contest["parity"]:
        share = parity["ours_rms"] / parity["allowed_rms"] if parity["allowed_rms"] else 0.0
        lines.append(
            f"{parity['name']}: {'parity' if parity['green'] else '**no parity**'}, "
            f"rms error {share:.2f} of what is allowed"
        )
    if contest["rows"]:
        lines += ["", "| | ms (quartiles) | ours is faster by |", "|---|---|---|"]
    return [*lines, *map(_row, contest["rows"]), ""]


def _row(row: dict[str, Any]) -> str:
    if row["status"] != "measured":
        return f"| {row['name']} | {row['status']}: {row['reason']} | |"
    ms = spread([1e3 * s for s in row["seconds"]])
    ratio = ""
    if row["ratio"] is not None and row["name"] != "fusedres":
        ratio = f"{row['ratio']:.2f} ({row['quartiles'][0]:.2f}–{row['quartiles'][1]:.2f})"
    return f"| {row['name']} | {ms.median:.3f} ({ms.low:.3f}–{ms.high:.3f}) | {ratio} |"
