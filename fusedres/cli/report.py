"""A comparison as a table in the terminal, as markdown and as JSON."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from fusedres.cli.measure import Timing
from fusedres.cli.networks import OURS, PLAIN_NHWC
from fusedres.cli.parity import Parity
from fusedres.cli.results import Comparison, Section

#: Raised when a field of the JSON changes its meaning.
JSON_FORMAT = 1

Row = tuple[str, ...]


def title(comparison: Comparison, section: Section) -> str:
    c = comparison
    return f"{section.mode}: {c.model}, batch {c.batch}, {c.size}×{c.size}, {c.arithmetic}"


def setting(comparison: Comparison) -> str:
    """The line a number must not be quoted without."""
    c = comparison
    versions = ", ".join(f"{name} {c.versions[name]}" for name in ("torch", "torchvision", "fusedres"))
    threads = f"{c.threads} thread{'s' if c.threads > 1 else ''}"
    rounds = f"medians (quartiles) of {c.rounds} interleaved rounds"
    return f"{c.device}, {threads}; {versions}; fusedres by {c.plan}; {rounds}"


def rows(section: Section, batch: int) -> list[Row]:
    """The table of one section: a label, then a cell a contender."""
    names = [timing.name for timing in section.timings]
    table: list[Row] = [("", *names)]
    table.append(("ms a batch", *(_milliseconds(t) for t in section.timings)))
    table.append(("images/s", *(f"{batch / t.median:.1f}" for t in section.timings)))
    ratio = section.speedup
    first, third = ratio.quartiles
    table.append(_only_ours(names, f"× {section.fastest_peer.name}", f"{ratio.of_medians:.2f}"))
    table.append(
        _only_ours(names, "× round by round", f"{ratio.median_of_pairs:.2f} ({first:.2f}–{third:.2f})")
    )
    table.append(("kernels called", *(str(section.kernels[name]) for name in names)))
    if section.saved:
        table.append(("kept for backward, MB", *(f"{section.saved[name] / 1e6:.1f}" for name in names)))
    for parity in section.parity:
        table.extend(_parity_rows(names, parity))
    if section.agreement is not None:
        a = section.agreement
        table.append(_only_ours(names, "same top class", f"{a.top1}/{a.images}"))
        aside = f" (+{a.near_ties} near ties)" if a.near_ties else ""
        table.append(_only_ours(names, "same top 5", f"{a.top5}/{a.images}{aside}"))
    table.append(_only_ours(names, "parity", "passed" if section.passed else "FAILED"))
    return table


def print_report(comparison: Comparison, console: Console) -> None:
    """The tables, the weights' origin and what to know before quoting them."""
    for section in comparison.sections:
        head, *body = rows(section, comparison.batch)
        table = Table(
            title=title(comparison, section), title_style="bold", title_justify="left", box=SIMPLE_HEAD
        )
        for index, name in enumerate(head):
            style = "bold green" if name == OURS else None
            table.add_column(name, justify="left" if index == 0 else "right", style=style)
        for row in body:
            table.add_row(*row, style="bold red" if row[-1] == "FAILED" else None)
        console.print(table)
    for line in _notes(comparison):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def markdown(comparison: Comparison) -> str:
    """The same tables as markdown."""
    lines = [f"# fusedres compare: {comparison.model}", ""]
    for section in comparison.sections:
        head, *body = rows(section, comparison.batch)
        lines += [f"## {title(comparison, section)}", ""]
        lines += [_markdown_row(head), _markdown_row(("---", *["---:"] * (len(head) - 1)))]
        lines += [*map(_markdown_row, body), ""]
    lines += [f"- {line}" for line in _notes(comparison)]
    return "\n".join(lines) + "\n"


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Settings, versions, verdicts and raw timings."""
    content: dict[str, Any] = {"format": JSON_FORMAT, "passed": comparison.passed, **asdict(comparison)}
    for plain, section in zip(content["sections"], comparison.sections, strict=True):
        ratio = section.speedup
        plain["passed"] = section.passed
        plain["speedup"] = {"against": section.fastest_peer.name, **asdict(ratio)}
        for entry, parity in zip(plain["parity"], section.parity, strict=True):
            entry["passed"] = parity.passed
        for entry, timing in zip(plain["timings"], section.timings, strict=True):
            entry["median"], entry["quartiles"] = timing.median, timing.quartiles
            entry["images_per_second"] = comparison.batch / timing.median
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` so that ``path`` is never a half-written file."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write to a temporary file beside ``path``, then put it in its place in one step."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        temporary.chmod(0o644)  # mkstemp's 0600 would keep a result from everyone else
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _notes(comparison: Comparison) -> list[str]:
    notes = [setting(comparison), f"weights: {comparison.weights}"]
    if comparison.caveat:
        notes.append(comparison.caveat)
    notes.append(
        f"photographs: {', '.join(comparison.photos)}; further images of a batch are other crops of them"
    )
    notes += [f"left out: {message}" for message in comparison.unreadable]
    for section in comparison.sections:
        if section.agreement and section.agreement.wrong:
            images = ", ".join(map(str, section.agreement.wrong))
            notes.append(f"top classes differ by more than a near tie on images {images} of the batch")
    return notes


def _milliseconds(timing: Timing) -> str:
    first, third = timing.quartiles
    return f"{_short(timing.median)} ({_short(first)}–{_short(third)})"


def _short(seconds: float) -> str:
    milliseconds = seconds * 1e3
    return f"{milliseconds:.0f}" if milliseconds >= 100 else f"{milliseconds:.1f}"


def _parity_rows(names: list[str], parity: Parity) -> list[Row]:
    table = []
    for kind in ("max", "rms"):
        cells = dict.fromkeys(names, "")
        ours, allowed = getattr(parity, f"ours_{kind}"), getattr(parity, f"allowed_{kind}")
        cells[PLAIN_NHWC] = f"{getattr(parity, f'torch_{kind}'):.1e}"
        cells[OURS] = f"{ours:.1e} {'≤' if ours <= allowed else '>'} {allowed:.1e}"
        table.append((f"{parity.name}, {kind} error", *cells.values()))
    return table


def _only_ours(names: list[str], label: str, value: str) -> Row:
    return (label, *("" for _ in names[:-1]), value)


def _markdown_row(cells: Row) -> str:
    return "| " + " | ".join(cells) + " |"
