"""What a run prints at its end: every number of a cell, the unflattering ones too."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from benchmarks.models import timing
from benchmarks.models.cells import Cell
from benchmarks.models.peers import PEERS
from benchmarks.models.report import cells_of, images_per_second, ratios
from benchmarks.models.results import Results


def console_tables(results: Results, only: set[str]) -> list[Table]:
    """A table a cell, for the cells named in ``only``."""
    chosen = [(cell, m) for cell, m in cells_of(results, "infer", "train", "saved") if str(cell) in only]
    return [_saved(cell, m) if cell.task == "saved" else _timed(cell, m) for cell, m in chosen]


def _timed(cell: Cell, measured: dict[str, Any]) -> Table:
    table = Table(
        title=f"{cell}: {_verdict(measured['parity'])}", title_justify="left", caption_justify="left"
    )
    for column in ("peer", "ms", "images/s", "× ours is faster", "faults", "peak MB", "rms error"):
        table.add_column(column, justify="left" if column == "peer" else "right", no_wrap=True)
    found = ratios(measured)
    notes = []
    for name, peer in measured["peers"].items():
        if "seconds" not in peer:
            notes.append(f"{PEERS[name].label}: {peer['status']}, {peer.get('reason')}")
            continue
        ms = timing.spread([1e3 * s for s in timing.per_round(peer["seconds"])])
        ratio = found.get(name)
        table.add_row(
            PEERS[name].label,
            f"{ms.median:.1f} ({ms.low:.1f}–{ms.high:.1f})",
            f"{images_per_second(cell, peer['seconds']):.2f}",
            f"{ratio.median:.2f} ({ratio.low:.2f}–{ratio.high:.2f})" if ratio else "",
            f"{timing.spread(peer['faults_per_call']).median:.0f}",
            f"{peer['peak_bytes'] / 1e6:.0f}",
            f"{peer['error']:.1e}" if peer.get("error") is not None else "",
        )
    table.caption = "\n".join(notes) or None
    return table


def _verdict(parity: dict[str, Any]) -> str:
    if parity["share"] is None:
        return f"[bold red]no parity[/] ({parity['worst']})"
    colour = "green" if parity["green"] else "bold red"
    return f"[{colour}]parity {parity['share']:.2f}[/] of the allowed error ({parity['worst']})"


def _saved(cell: Cell, measured: dict[str, Any]) -> Table:
    table = Table("peer", "MB saved an image", title=str(cell), title_justify="left")
    for name, peer in measured["peers"].items():
        found = peer.get("saved_bytes")
        failure = f"{peer['status']}: {peer.get('reason')}"
        table.add_row(PEERS[name].label, f"{found / cell.batch / 1e6:.2f}" if found else failure)
    return table
