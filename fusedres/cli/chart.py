"""The picture of a comparison: images a second, and the photographs with what both sides take them for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from fusedres.cli.console import require
from fusedres.cli.measure import Timing
from fusedres.cli.networks import OURS, PLAIN, PLAIN_NHWC
from fusedres.cli.report import setting
from fusedres.cli.results import Comparison, Section, Seen

#: Colour-blind safe (Okabe and Ito), ours the one that stands out.
COLOURS = {PLAIN: "#b8c0c8", PLAIN_NHWC: "#7d8894", OURS: "#009e73"}
INK, MUTED = "#22282e", "#66707a"
PHOTOS_A_ROW, MOST_PHOTOS = 4, 8


def draw_chart(
    comparison: Comparison, thumbnails: Sequence[Tensor], names: list[str] | None, path: Path
) -> None:
    """Write the PNG.

    Args:
        comparison: what to draw.
        thumbnails: (S, S, 3) in [0, 1], one for each entry of the first section's ``seen``; the first
            eight are shown.
        names: the classes' names; ``None`` where they would mean nothing, and agreement alone is shown.
        path: where the picture goes; it is replaced in one step.
    """
    figure_module = require("matplotlib.figure", "the chart")
    seen = comparison.sections[0].seen[:MOST_PHOTOS]
    photo_rows = -(-len(seen) // PHOTOS_A_ROW)
    bars_height, photo_height = 0.7 + 0.42 * len(COLOURS), 2.75
    height = 1.0 + bars_height + photo_height * photo_rows + 0.3
    figure = figure_module.Figure(figsize=(11, height), dpi=150, facecolor="white", layout="constrained")
    grid = figure.add_gridspec(1 + photo_rows, 1, height_ratios=[bars_height] + [photo_height] * photo_rows)
    bars = grid[0].subgridspec(1, len(comparison.sections), wspace=0.08)
    for index, section in enumerate(comparison.sections):
        _draw_bars(figure.add_subplot(bars[index]), section, comparison.batch, labels=index == 0)
    for row in range(photo_rows):
        cells = grid[1 + row].subgridspec(1, PHOTOS_A_ROW, wspace=0.04)
        for column in range(PHOTOS_A_ROW):
            index = row * PHOTOS_A_ROW + column
            if index < len(seen):
                _draw_photo(figure.add_subplot(cells[column]), thumbnails[index], seen[index], names)
    c = comparison
    verdict = "passed" if c.passed else "FAILED"
    heading = f"{c.model}, batch {c.batch}, {c.size}×{c.size}, {c.arithmetic}: parity {verdict}"
    figure.suptitle(heading, x=0.01, ha="left", fontsize=14, fontweight="bold", color=INK)
    note = setting(comparison) + (f"\n{comparison.caveat}" if comparison.caveat else "")
    figure.supxlabel(note, x=0.01, ha="left", fontsize=8, color=MUTED)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        figure.savefig(temporary, format="png")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _draw_bars(axes: Any, section: Section, batch: int, *, labels: bool) -> None:
    timings = section.timings
    rates = [batch / t.median for t in timings]
    axes.barh(
        range(len(timings)),
        rates,
        xerr=_spread(timings, batch),
        color=[COLOURS[t.name] for t in timings],
        height=0.72,
        error_kw={"ecolor": INK, "elinewidth": 1, "capsize": 3},
    )
    right = max(batch / t.quartiles[0] for t in timings)
    for position, (timing, rate) in enumerate(zip(timings, rates, strict=True)):
        text = f"{rate:.1f}"
        if timing.name == OURS:
            text += f"  ({section.speedup.of_medians:.2f}×)"
        edge = batch / timing.quartiles[0]
        axes.text(edge + 0.02 * right, position, text, va="center", fontsize=9, color=INK)
    axes.set_xlim(0, right * 1.35)
    axes.set_yticks(range(len(timings)), [t.name for t in timings] if labels else [""] * len(timings))
    axes.invert_yaxis()
    title = f"{section.mode}: images/s (× {section.fastest_peer.name})"
    axes.set_title(title, loc="left", fontsize=10, color=INK)
    axes.tick_params(length=0, labelsize=9, colors=MUTED)
    axes.tick_params(axis="y", labelsize=10, labelcolor=INK)
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
    axes.grid(axis="x", color="#e6e9ec", linewidth=0.8)
    axes.set_axisbelow(True)


def _spread(timings: Sequence[Timing], batch: int) -> list[list[float]]:
    """Distances from the median's rate down to the third quartile's and up to the first's."""
    down = [batch / t.median - batch / t.quartiles[1] for t in timings]
    up = [batch / t.quartiles[0] - batch / t.median for t in timings]
    return [down, up]


def _draw_photo(axes: Any, thumbnail: Tensor, seen: Seen, names: list[str] | None) -> None:
    axes.imshow(thumbnail.numpy())
    axes.set_xticks([])
    axes.set_yticks([])
    same = seen.torchvision[0] == seen.fusedres[0]
    for spine in axes.spines.values():
        spine.set_color(COLOURS[OURS] if same else "#d55e00")
        spine.set_linewidth(2)
    lines = [
        f"{who}: {_label(top, names)}"
        for who, top in (("torchvision", seen.torchvision), (OURS, seen.fusedres))
    ]
    axes.set_xlabel("\n".join(lines), fontsize=8, color=INK, loc="left")
    axes.set_title(
        seen.photo + ("" if same else "  (top class differs)"), fontsize=9, loc="left", color=MUTED
    )


def _label(top: tuple[int, float], names: list[str] | None) -> str:
    index, probability = top
    name = names[index] if names else f"class {index}"
    return f"{name if len(name) <= 24 else name[:23] + '…'} {probability:.1%}"
