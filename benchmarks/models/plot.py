"""The README's picture of a results file: how many times faster than each peer, and the bytes saved."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmarks.models import machine
from benchmarks.models.cells import Cell
from benchmarks.models.peers import OURS, PEERS, PLAIN
from benchmarks.models.report import headline, model_title, ratios, threads_title
from benchmarks.models.results import Results, write_atomically

#: Eager in greys, Inductor in blues, the inference engines in warm colours; told apart without red and green.
COLOURS = {
    PLAIN: "#6b7280",
    "contiguous": "#a8afba",
    "compile": "#7fb2e5",
    "freezing": "#2f6fb4",
    "ort": "#e8a33d",
    "openvino": "#8f5aa8",
    OURS: "#1f9e8a",
    "recompute": "#7fd1c4",
}
INK, FAINT = "#1f2937", "#d9dde3"
BAR = 0.9
#: What stands in each row of the picture: the most bars across the whole width.
ROWS = (("infer",), ("train", "saved"))


def draw(results: Results, path: Path) -> None:
    """Write the PNG of ``results`` to ``path``.

    Raises:
        ValueError: there is nothing to draw.
    """
    timed = {
        task: [(cell, found) for cell, m in headline(results, task) if (found := ratios(m))]
        for task in ("infer", "train")
    }
    saved = [pair for pair in headline(results, "saved") if "saved_bytes" in pair[1]["peers"].get(PLAIN, {})]
    panels = {**timed, "saved": saved}
    rows: list[Any] = [[name for name in row if panels[name]] for row in ROWS]
    rows = [row * (2 // len(row)) for row in rows if row]  # a panel alone in its row spans both columns
    if not rows:
        raise ValueError("plot: the results must hold a cell with green parity or saved bytes; got neither")
    with plt.rc_context({"font.size": 9, "font.family": "DejaVu Sans", "text.color": INK}):
        figure, axes = plt.subplot_mosaic(rows, figsize=(10.5, 3.6 * len(rows) + 0.3), layout="constrained")
        for task, heading in (("infer", "Inference"), ("train", "Training step")):
            if timed[task]:
                _draw_ratios(axes[task], timed[task], heading)
        if saved:
            _draw_saved(axes["saved"], saved)
        device = results["device"]
        figure.supxlabel(machine.title(device), fontsize=8, color=INK)
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=160, metadata={"Software": None})
        plt.close(figure)
    write_atomically(path, picture.getvalue())


def _tidy(axes: Axes, heading: str) -> None:
    axes.set_title(heading, loc="left", fontsize=10.5, fontweight="bold", color=INK)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.tick_params(length=0, colors=INK)
    axes.yaxis.grid(True, color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)


def _draw_ratios(axes: Axes, timed: list[tuple[Cell, dict[str, Any]]], heading: str) -> None:
    named: set[str] = set()
    highest = 1.0
    for place, (_, found) in enumerate(timed):
        width = BAR / max(len(found), 3)
        for i, name in enumerate(name for name in PEERS if name in found):
            spread = found[name]
            x = place + (i - (len(found) - 1) / 2) * width
            label = PEERS[name].label if name not in named else None
            axes.bar(x, spread.median, width * 0.9, color=COLOURS[name], label=label)
            error = [[spread.median - spread.low], [spread.high - spread.median]]
            axes.errorbar(x, spread.median, yerr=error, color=INK, linewidth=0.8, capsize=1.5)
            axes.annotate(
                f"{spread.median:.2f}",
                (x, spread.high),
                (0, 3),
                textcoords="offset points",
                ha="center",
                fontsize=7,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
            )
            named.add(name)
            highest = max(highest, spread.high)
    axes.axhline(1.0, color=INK, linewidth=1.0, linestyle=(0, (4, 2)))
    axes.set_ylim(0, highest * 1.35)  # room for the legend
    axes.set_xlim(-0.6, len(timed) - 0.4)
    axes.set_xticks(range(len(timed)), [_tick(cell) for cell, _ in timed])
    axes.set_ylabel("peer's time / ours")
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="upper left")
    _tidy(axes, f"{heading}: how many times faster fusedres is")


def _tick(cell: Cell) -> str:
    dtype = f"{cell.dtype} fast" if cell.precision == "fast" else cell.dtype
    return f"{model_title(cell.model)}, {dtype}\nbatch {cell.batch}, {threads_title(cell.threads)}"


def _draw_saved(axes: Axes, saved: list[tuple[Cell, dict[str, Any]]]) -> None:
    names = (PLAIN, OURS, "recompute")
    for place, (cell, measured) in enumerate(saved):
        plain = measured["peers"][PLAIN]["saved_bytes"]
        for i, name in enumerate(names):
            found = measured["peers"].get(name, {}).get("saved_bytes")
            if found is None:
                continue
            x = place + (i - 1) * BAR / 3
            megabytes = found / cell.batch / 1e6
            label = PEERS[name].label if place == 0 else None
            axes.bar(x, megabytes, BAR / 3 * 0.9, color=COLOURS[name], label=label)
            note = f"{megabytes:.0f}" if name == PLAIN else f"{found / plain:.2f}×"
            axes.annotate(note, (x, megabytes), (0, 2), textcoords="offset points", ha="center", fontsize=7)
    axes.set_xticks(range(len(saved)), [f"{model_title(cell.model)}\n{cell.dtype}" for cell, _ in saved])
    axes.set_ylabel("MB an image")
    axes.margins(y=0.35)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=8, loc="upper right")
    _tidy(axes, "Saved for backward")
