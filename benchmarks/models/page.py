"""``docs/benchmarks.md``, written from the results files: everything that the README leaves out."""

from __future__ import annotations

from pathlib import Path

from benchmarks.models import machine, timing
from benchmarks.models.peers import OURS, PEERS, PLAIN
from benchmarks.models.report import (
    NO_NUMBER,
    Cells,
    Measured,
    cells_of,
    conditions,
    headline,
    model_title,
    ratios,
    row,
    speed_table,
    title,
    with_quartiles,
)
from benchmarks.models.results import Results, write_atomically

HEAD = """\
# Benchmarks

Written by `python -m benchmarks report` from `benchmarks/results`; ResNet-50 on all cores stands in the
[README](../README.md). `python -m benchmarks run --cells SUITE` measures a part of it again;
`python -m benchmarks list` names suites and cells.
"""
NEIGHBOURS = {
    "busy": "on a core that the system chooses",
    "pinned": "on a core of its own choice, always the same",
}


def sweep(results: Results) -> Cells:
    """ResNet-50's inference at every batch size and number of threads."""
    return [
        (cell, measured)
        for cell, measured in cells_of(results, "infer")
        if cell.model == "resnet50" and cell.neighbour == "none"
    ]


def render(results: Results, plot: str | None) -> str:
    """One machine's sections; ``plot`` is the sweep's picture as the page sees it, where it has one."""
    device = results["device"]
    timed = cells_of(results, "infer", "train")
    shown = [*headline(results, "infer", "train"), *sweep(results)]
    others = [pair for pair in timed if pair not in shown and pair[0].neighbour == "none"]
    beside = [pair for pair in timed if pair[0].neighbour != "none"]
    picture = [f"![ResNet-50 at batch sizes 1 to 64]({plot})", ""] if plot else []
    alike = [pair for pair in timed if pair[0].neighbour == "none" and pair[0].threads == device["cores"]]
    sections = {
        "Other models": speed_table(others, device["cores"], None),
        "ResNet-50 at every batch size": [*picture, *speed_table(sweep(results), device["cores"], None)],
        "Memory": memory_table([pair for pair in alike if pair[0].batch in (1, 16)], device["cores"]),
        "Beside a busy neighbour": neighbour_table(beside, device["cores"]),
    }
    lines = [f"## {machine.title(device)}", ""]
    for heading, body in sections.items():
        lines += [f"### {heading}", "", *body] if body else []
    return "\n".join([*lines, conditions(results, timed)]) if timed else ""


def write_page(page: Path, sections: list[str]) -> None:
    write_atomically(page, ("\n\n".join([HEAD.rstrip(), *filter(None, sections)]) + "\n").encode())


def _megabytes(peer: Measured) -> float | None:
    """The peak of resident memory, without what the process held before it had a model."""
    return (peer["peak_bytes"] - peer["base_bytes"]) / 1e6 if "base_bytes" in peer else None


def memory_table(cells: Cells, cores: int) -> list[str]:
    """Peaks and page faults, ours and those of whoever was measured."""
    known = [pair for pair in cells if _megabytes(pair[1]["peers"].get(OURS, {})) is not None]
    if not known:
        return []
    peers = [
        peer for peer in PEERS.values() if any("seconds" in m["peers"].get(peer.name, {}) for _, m in known)
    ]
    lines = [
        "The peak of a process's resident memory while it runs, less what it held with its libraries before",
        "it made the model: parameters, packed weights, activations, and what allocators keep. Then the page",
        "faults of a call once it is warm (the median round).",
        "",
        row(["", *(f"{peer.label}, MB" for peer in peers), *(f"{peer.label}, faults" for peer in peers)]),
        row([":--"] + ["--:"] * (2 * len(peers))),
    ]
    for cell, measured in known:
        found = [measured["peers"].get(peer.name, {}) for peer in peers]
        plain = _megabytes(measured["peers"].get(PLAIN, {}))
        peaks = [_peak(peer, plain if peers[i].own else None) for i, peer in enumerate(found)]
        faults = [
            f"{timing.spread(peer['faults_per_call']).median:.0f}" if "seconds" in peer else NO_NUMBER
            for peer in found
        ]
        lines.append(row([f"{model_title(cell.model)}, {title(cell, cores)}", *peaks, *faults]))
    return [*lines, ""]


def _peak(peer: Measured, plain: float | None) -> str:
    peak = _megabytes(peer)
    if peak is None:
        return NO_NUMBER
    return f"{peak:.0f}" + (f" ({peak / plain:.2f} × eager)" if plain else "")


def neighbour_table(cells: Cells, cores: int) -> list[str]:
    """How much longer each takes while another process keeps a core busy, and the ratios then."""
    known = [pair for pair in cells if "alone_seconds" in pair[1]["peers"].get(OURS, {})]
    if not known:
        return []
    peers = [
        p for p in PEERS.values() if any("alone_seconds" in m["peers"].get(p.name, {}) for _, m in known)
    ]
    others = [peer for peer in peers if peer.name != OURS]
    lines = [
        "Each round times every peer alone, and again while another process keeps one core busy: the time",
        "beside it over the time alone, and how many times faster fusedres is, alone → beside it.",
        "",
        row(["", *(f"{p.label}, slower by" for p in peers), *(f"× {p.label}" for p in others)]),
        row([":--"] + ["--:"] * (len(peers) + len(others))),
    ]
    for cell, measured in known:
        found = [measured["peers"].get(peer.name, {}) for peer in peers]
        slower = [
            with_quartiles(timing.ratio(peer["seconds"], peer["alone_seconds"]))
            if "seconds" in peer
            else NO_NUMBER
            for peer in found
        ]
        alone, beside = ratios(measured, "alone_seconds"), ratios(measured)
        faster = [
            f"{alone[p.name].median:.2f} → {beside[p.name].median:.2f}" if p.name in beside else NO_NUMBER
            for p in others
        ]
        name = f"{model_title(cell.model)}, {title(cell, cores)}; {NEIGHBOURS[cell.neighbour]}"
        lines.append(row([name, *slower, *faster]))
    return [*lines, ""]
