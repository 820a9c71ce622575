"""What is read out of a results file, and the tables of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from benchmarks.models import timing
from benchmarks.models.cells import Cell
from benchmarks.models.peers import OURS, PEERS, PLAIN
from benchmarks.models.results import Results

NO_NUMBER = "–"
TASKS = {"infer": "inference", "train": "training step", "saved": "saved for backward"}
NAMES = {"resnext50_32x4d": "ResNeXt-50 32×4d", "resnext101_32x8d": "ResNeXt-101 32×8d"}

Measured = dict[str, Any]
Cells = list[tuple[Cell, Measured]]


def threads_title(threads: int) -> str:
    return f"{threads} thread{'s' * (threads != 1)}"


def title(cell: Cell, cores: int) -> str:
    """``inference bf16, batch 16``; the threads where they are not the machine's."""
    dtype = "bf16 autocast" if cell.task == "train" and cell.dtype == "bf16" else cell.dtype
    fast = " `fast`" if cell.precision == "fast" else ""
    threads = "" if cell.threads == cores else f", {threads_title(cell.threads)}"
    return f"{TASKS[cell.task]} {dtype}{fast}, batch {cell.batch}{threads}"


def model_title(model: str) -> str:
    """``ResNet-50`` for ``resnet50``; names of no known form as they are."""
    plain = model.replace("resnet", "ResNet-") if model.startswith("resnet") else model
    return NAMES.get(model, plain)


def _order(cell: Cell) -> tuple[object, ...]:
    """By model (ResNet-18 before ResNet-101), inference before training, small batches first."""
    digits = int("".join(filter(str.isdigit, cell.model.split("_")[0])) or 0)
    family = cell.model.rstrip("0123456789")
    kind = ("fp32", "bf16").index(cell.dtype), cell.precision
    return family, digits, cell.model, cell.task, kind, cell.batch, -cell.threads, cell.neighbour


def cells_of(results: Results, *tasks: str) -> Cells:
    """The measured cells of some tasks."""
    cells = [(Cell.parse(name), measured) for name, measured in results["cells"].items()]
    return sorted((pair for pair in cells if pair[0].task in tasks), key=lambda pair: _order(pair[0]))


def headline(results: Results, *tasks: str) -> Cells:
    """What the README shows: ResNet-50 on all cores, at the batches of the suite ``main``."""
    cores = results["device"]["cores"]
    return [
        (cell, measured)
        for cell, measured in cells_of(results, *tasks)
        if cell.task == "saved"
        or (
            (cell.model, cell.threads, cell.neighbour) == ("resnet50", cores, "none")
            and cell.batch in (1, 16)
        )
    ]


def ratios(measured: Measured, timings: str = "seconds") -> dict[str, timing.Spread]:
    """How many times faster than each peer ours is; nothing while parity is red or ours has no timings."""
    ours = measured["peers"].get(OURS, {})
    if not measured["parity"]["green"] or timings not in ours:
        return {}
    return {
        name: timing.ratio(peer[timings], ours[timings])
        for name, peer in measured["peers"].items()
        if name in PEERS and not PEERS[name].own and timings in peer
    }


def best(measured: Measured) -> tuple[str, timing.Spread] | None:
    """The peer that comes nearest to ours, or is furthest ahead of it, and how many times faster ours is."""
    found = ratios(measured)
    return min(found.items(), key=lambda pair: pair[1].median) if found else None


def images_per_second(cell: Cell, seconds: list[list[float]]) -> float:
    return cell.batch / timing.spread(timing.per_round(seconds)).median


def row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def with_quartiles(spread: timing.Spread) -> str:
    return f"{spread.median:.2f} <sub>{spread.low:.2f}–{spread.high:.2f}</sub>"


def against_best(measured: Measured | None) -> str:
    """``1.03 <sub>1.01–1.06</sub> OpenVINO``."""
    found = best(measured) if measured is not None else None
    return f"{with_quartiles(found[1])} {PEERS[found[0]].label}" if found else NO_NUMBER


def speed(cell: Cell, measured: Measured) -> str:
    ours = measured["peers"].get(OURS, {})
    if "seconds" not in ours:
        return str(ours.get("status", NO_NUMBER))
    if not measured["parity"]["green"]:
        return "parity is red: no speed-up reported"
    return f"{images_per_second(cell, ours['seconds']):.1f} images/s"


def speed_table(cells: Cells, cores: int, one_thread: Callable[[Cell], Measured | None] | None) -> list[str]:
    """Rows are cells, columns are peers, numbers are how many times faster ours is, with quartiles.

    ``one_thread`` finds a cell's counterpart on one thread, whose ratio to the best peer ends the row.
    """
    if not cells:
        return []
    peers = [p for p in PEERS.values() if not p.own and any(p.name in m["peers"] for _, m in cells)]
    singles = [one_thread(cell) if one_thread else None for cell, _ in cells]
    last = ["× the best peer, one thread"] if any(singles) else []
    heads = ["", "fusedres", *(f"× {peer.label}" for peer in peers), *last]
    lines = [row(heads), row([":--"] + ["--:"] * (len(heads) - 1))]
    for (cell, measured), single in zip(cells, singles, strict=True):
        found = ratios(measured)
        numbers = [with_quartiles(found[p.name]) if p.name in found else NO_NUMBER for p in peers]
        name = f"{model_title(cell.model)}, {title(cell, cores)}"
        lines.append(row([name, speed(cell, measured), *numbers, *([against_best(single)] if last else [])]))
    return [*lines, "", *_reasons(cells)]


def _reasons(cells: Cells) -> list[str]:
    """Why some peer has no number, each reason once."""
    reasons = {
        f"{PEERS[name].label}: {peer['status']} ({peer['reason']})"
        for _, measured in cells
        for name, peer in measured["peers"].items()
        if peer["status"] != "measured" and name in PEERS
    }
    return [f"{NO_NUMBER} has no number. {'; '.join(sorted(reasons))}.", ""] if reasons else []


def saved_table(results: Results) -> list[str]:
    """Bytes a training forward keeps for backward, an image, and their share of eager's."""
    cells = cells_of(results, "saved")
    names = [n for n in (PLAIN, OURS, "recompute") if any(n in m["peers"] for _, m in cells)]
    if not names:
        return []
    lines = [row(["saved for backward, per image", *(PEERS[n].label for n in names)])]
    lines.append(row([":--"] + ["--:"] * len(names)))
    for cell, measured in cells:
        plain = measured["peers"].get(PLAIN, {}).get("saved_bytes")
        numbers = []
        for name in names:
            found = measured["peers"].get(name, {}).get("saved_bytes")
            share = f" ({found / plain:.2f} ×)" if found and plain and name != PLAIN else ""
            numbers.append(f"{found / cell.batch / 1e6:.1f} MB{share}" if found else NO_NUMBER)
        lines.append(row([f"{model_title(cell.model)}, {cell.dtype}, batch {cell.batch}", *numbers]))
    return [*lines, ""]


def conditions(results: Results, cells: Cells) -> str:
    """Where, when and with what: from the file, so that it cannot disagree with the numbers."""
    device = results["device"]
    measured = [entry for _, entry in cells]
    days = sorted({cell["measured"][:10] for cell in measured})
    packages = ("torch", "torchvision", "onnxruntime", "openvino")
    versions = []
    for package in packages:
        found = sorted({cell["versions"][package] for cell in measured if cell["versions"].get(package)})
        versions += [f"{package} {' and '.join(found)}"] if found else []
    rounds = sorted({cell["rounds"] for cell in measured if cell.get("rounds")})
    tuned = [cell.get("tuned", False) for cell in measured if cell.get("rounds")]
    words = "not tuned" if not any(tuned) else "tuned (`fusedres.tune`)" if all(tuned) else "tuned in part"
    return (
        f"{device['cpu']}, {device['cores']} cores ({', '.join(device['isa'])}), {device['system']}; "
        f"{' to '.join(dict.fromkeys((days[0], days[-1])))}; {', '.join(versions)}. "
        "Inputs: photographs, 224 × 224. Every peer in a process of its own, "
        f"{' or '.join(map(str, rounds)) or 'no'} interleaved rounds; a number is the median over rounds of "
        "the peer's time divided by ours in that round, with its quartiles: above 1, fusedres is faster. "
        f"fusedres was {words}."
    )
