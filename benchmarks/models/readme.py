"""The README's section, written between its two marks from the results files: ResNet-50 alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from benchmarks.models import machine
from benchmarks.models.cells import Cell
from benchmarks.models.report import (
    Measured,
    cells_of,
    conditions,
    headline,
    saved_table,
    speed_table,
)
from benchmarks.models.results import Results, write_atomically

START, END = "<!-- bench:start -->", "<!-- bench:end -->"


def render(results: Results, plot: str | None = None) -> str:
    """The README's section for one machine; ``plot`` is the picture's path as the README sees it."""
    shown = headline(results, "infer", "train", "saved")
    if not shown:
        raise ValueError("report: the results file must hold a cell of the suite `main`; got none")
    picture = [f"![How many times faster fusedres is than each peer]({plot})", ""] if plot else []
    measured = dict(cells_of(results, "infer"))

    def one_thread(cell: Cell) -> Measured | None:
        return measured.get(replace(cell, threads=1)) if cell.threads > 1 else None

    timed = speed_table(headline(results, "infer", "train"), results["device"]["cores"], one_thread)
    heading = [f"### {machine.title(results['device'])}", ""]
    return "\n".join([*heading, *picture, *timed, *saved_table(results), conditions(results, shown)])


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
