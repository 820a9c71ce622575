"""The README's tables, written between its two marks from the results files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.models import timing
from benchmarks.models.cells import Cell
from benchmarks.models.peers import OURS, PEERS, PLAIN
from benchmarks.models.results import Results, write_atomically

START, END = "<!-- bench:start -->", "<!-- bench:end -->"
NO_NUMBER = "–"
TASKS = {"infer": "inference", "train": "training step", "saved": "saved for backward"}


def title(cell: Cell, cores: int) -> str:
    """``inference bf16, batch 16``; the threads where they are not the machine's."""
    dtype = "bf16 autocast" if cell.task == "train" and cell.dtype == "bf16" else cell.dtype
    threads = "" if cell.threads == cores else f", {cell.threads} thread{'s' * (cell.threads != 1)}"
    return f"{TASKS[cell.task]} {dtype}, batch {cell.batch}{threads}"


def model_title(model: str) -> str:
    """``ResNet-50`` for ``resnet50``; other names as they are."""
    return model.replace("resnet", "ResNet-") if model.startswith("resnet") else model


def cells_of(results: Results, *tasks: str) -> list[tuple[Cell, dict[str, Any]]]:
    """The measured cells of some tasks: by model, then inference before training, small batches first."""
    cells = [(Cell.parse(name), measured) for name, measured in results["cells"].items()]
    chosen = [pair for pair in cells if pair[0].task in tasks]
    order = {"fp32": 0, "bf16": 1}
    return sorted(chosen, key=lambda p: (p[0].model, p[0].task, order[p[0].dtype], p[0].batch, -p[0].threads))


def ratios(measured: dict[str, Any]) -> dict[str, timing.Spread]:
    """How many times faster than each peer ours is; nothing while parity is red or ours has no timings."""
    ours = measured["peers"].get(OURS, {})
    if not measured["parity"]["green"] or "seconds" not in ours:
        return {}
    return {
        name: timing.ratio(peer["seconds"], ours["seconds"])
        for name, peer in measured["peers"].items()
        if name != OURS and "seconds" in peer
    }


def images_per_second(cell: Cell, seconds: list[list[float]]) -> float:
    return cell.batch / timing.spread(timing.per_round(seconds)).median


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _speed(cell: Cell, measured: dict[str, Any]) -> str:
    ours = measured["peers"].get(OURS, {})
    if "seconds" not in ours:
        return str(ours.get("status", NO_NUMBER))
    if not measured["parity"]["green"]:
        return "parity is red: no speed-up reported"
    return f"{images_per_second(cell, ours['seconds']):.1f} images/s"


def speed_table(results: Results) -> list[str]:
    """Rows are cells, columns are peers, numbers are how many times faster ours is, with quartiles."""
    cells = cells_of(results, "infer", "train")
    if not cells:
        return []
    peers = [p for p in PEERS.values() if p.name != OURS and any(p.name in m["peers"] for _, m in cells)]
    lines = [
        _row(["", "fusedres", *(f"× {peer.label}" for peer in peers)]),
        _row([":--"] + ["--:"] * (len(peers) + 1)),
    ]
    for cell, measured in cells:
        found = ratios(measured)
        numbers = [
            f"{found[p.name].median:.2f} <sub>{found[p.name].low:.2f}–{found[p.name].high:.2f}</sub>"
            if p.name in found
            else NO_NUMBER
            for p in peers
        ]
        name = f"{model_title(cell.model)}, {title(cell, results['device']['cores'])}"
        lines.append(_row([name, _speed(cell, measured), *numbers]))
    return [*lines, "", *_reasons(cells)]


def _reasons(cells: list[tuple[Cell, dict[str, Any]]]) -> list[str]:
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
    lines = [_row(["saved for backward, per image", *(PEERS[n].label for n in names)])]
    lines.append(_row([":--"] + ["--:"] * len(names)))
    for cell, measured in cells:
        plain = measured["peers"].get(PLAIN, {}).get("saved_bytes")
        numbers = []
        for name in names:
            found = measured["peers"].get(name, {}).get("saved_bytes")
            share = f" ({found / plain:.2f} ×)" if found and plain and name != PLAIN else ""
            numbers.append(f"{found / cell.batch / 1e6:.1f} MB{share}" if found else NO_NUMBER)
        lines.append(_row([f"{model_title(cell.model)}, {cell.dtype}, batch {cell.batch}", *numbers]))
    return [*lines, ""]


def _conditions(results: Results) -> str:
    """Where, when and with what: from the file, so that it cannot disagree with the numbers."""
    device = results["device"]
    measured = list(results["cells"].values())
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


def render(results: Results, plot: str | None = None) -> str:
    """The README's section for one machine; ``plot`` is the picture's path as the README sees it."""
    if not results["cells"]:
        raise ValueError("report: the results file must hold a measured cell; got none")
    picture = [f"![How many times faster fusedres is than each peer]({plot})", ""] if plot else []
    return "\n".join([*picture, *speed_table(results), *saved_table(results), _conditions(results)])


def write_readme(readme: Path, sections: list[str]) -> None:
    """Replace what stands between the two marks.

    Raises:
        ValueError: the README has not exactly one of each, in order.
    """
    text = readme.read_text()
    if text.count(START) != 1 or text.count(END) != 1 or text.index(START) > text.index(END):
        raise ValueError(f"{readme}: must hold one line {START} and, after it, one line {END}")
    before, rest = text.split(START)
    _, after = rest.split(END)
    body = "\n\n".join(sections)
    write_atomically(readme, f"{before}{START}\n{body}\n{END}{after}".encode())
