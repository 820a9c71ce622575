"""The picture of a sweep: images a second and ratios over batch sizes, by dtype and number of threads."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmarks.models import machine
from benchmarks.models.page import sweep
from benchmarks.models.peers import OURS, PEERS
from benchmarks.models.plot import COLOURS, FAINT, INK
from benchmarks.models.report import Cells, images_per_second, ratios, threads_title
from benchmarks.models.results import Results, write_atomically
from benchmarks.models.suites import QUICK

#: Fewer batch sizes make no curve.
FEWEST_POINTS = 3


def draw_sweep(results: Results, path: Path) -> bool:
    """Write the PNG to ``path``, unless there are too few batch sizes; whether it was written."""
    columns = _columns(results)
    if not columns:
        return False
    with plt.rc_context({"font.size": 9, "font.family": "DejaVu Sans", "text.color": INK}):
        figure, axes = plt.subplots(
            2,
            len(columns),
            figsize=(3.2 * len(columns) + 0.6, 5.4),
            sharex="col",
            layout="constrained",
            squeeze=False,
        )
        for place, (heading, cells) in enumerate(columns.items()):
            _draw_speed(axes[0][place], cells)
            _draw_ratio(axes[1][place], cells)
            axes[0][place].set_title(heading, loc="left", fontsize=10, fontweight="bold", color=INK)
        axes[0][0].set_ylabel("images/s")
        axes[1][0].set_ylabel("peer's time / ours")
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, frameon=False, ncols=len(labels), loc="outside upper left", fontsize=8)
        device = results["device"]
        figure.supxlabel(f"batch size (ResNet-50); {machine.title(device)}", fontsize=8, color=INK)
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=160, metadata={"Software": None})
        plt.close(figure)
    write_atomically(path, picture.getvalue())
    return True


def _columns(results: Results) -> dict[str, Cells]:
    """By dtype and threads, those with a curve's worth of batch sizes."""
    columns: dict[str, Cells] = {}
    for cell, measured in sweep(results):
        if cell.precision == "default" and ratios(measured):
            columns.setdefault(f"{cell.dtype}, {threads_title(cell.threads)}", []).append((cell, measured))
    return {
        heading: cells
        for heading, cells in sorted(columns.items(), reverse=True)
        if len(cells) >= FEWEST_POINTS
    }


def _draw_speed(axes: Axes, cells: Cells) -> None:
    for name in QUICK:
        points = [
            (cell.batch, images_per_second(cell, m["peers"][name]["seconds"]))
            for cell, m in cells
            if "seconds" in m["peers"].get(name, {})
        ]
        _line(axes, name, points)
    axes.set_ylim(bottom=0)
    _tidy(axes, cells)


def _draw_ratio(axes: Axes, cells: Cells) -> None:
    for name in QUICK:
        if name != OURS:
            found = [(cell.batch, ratios(m)) for cell, m in cells]
            _line(axes, name, [(batch, spread[name].median) for batch, spread in found if name in spread])
    axes.axhline(1.0, color=INK, linewidth=1.0, linestyle=(0, (4, 2)))
    axes.set_ylim(bottom=0)
    _tidy(axes, cells)


def _line(axes: Axes, name: str, points: list[tuple[int, float]]) -> None:
    if points:
        width = 2.0 if name == OURS else 1.4
        style: dict[str, Any] = {"color": COLOURS[name], "linewidth": width, "marker": "o", "markersize": 3.5}
        axes.plot(*zip(*points, strict=True), label=PEERS[name].label, **style)


def _tidy(axes: Axes, cells: Cells) -> None:
    axes.set_xscale("log", base=2)
    batches = sorted({cell.batch for cell, _ in cells})
    axes.set_xticks(batches, [str(batch) for batch in batches])
    axes.minorticks_off()
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.tick_params(length=0, colors=INK)
    axes.yaxis.grid(True, color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
