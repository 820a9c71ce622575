"""Which cells are measured, against whom and how often: all of it data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatch
from itertools import product

from benchmarks.models.cells import Cell
from benchmarks.models.peers import OURS, PEERS, PLAIN

EVERYONE = tuple(PEERS)
#: Who may be the fastest (contiguous eager and Inductor without freezing never were), and ours offloaded for
#: its memory.
BEST = (OURS, "offload", PLAIN, "freezing", "ort", "openvino")
#: Those that compile for seconds, not for minutes: for many cells.
QUICK = (OURS, PLAIN, "ort", "openvino")

ALL_CORES = 0
DTYPES = ("fp32", "bf16")
SWEEP_BATCHES = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Entry:
    """A cell (``threads`` 0: as many as the run asks for), the peers worth their time there, its rounds."""

    cell: Cell
    peers: tuple[str, ...] = EVERYONE
    rounds: int = 5


def _infer(model: str, batch: int, dtype: str, threads: int = ALL_CORES) -> Cell:
    return Cell("infer", model, dtype, batch, threads)


_RESNET50 = [_infer("resnet50", batch, dtype) for dtype, batch in product(DTYPES, (1, 16))]

#: By name; a cell stands in one suite alone.
SUITES: dict[str, tuple[Entry, ...]] = {
    # The README's table: what a bare `run` measures.
    "main": (
        *(Entry(cell) for cell in _RESNET50),
        *(Entry(replace(cell, threads=1), BEST) for cell in _RESNET50),
        Entry(Cell("train", "resnet50", "fp32", 16, ALL_CORES)),
        Entry(Cell("train", "resnet50", "bf16", 16, ALL_CORES)),
        Entry(Cell("saved", "resnet50", "fp32", 16, ALL_CORES)),
        Entry(Cell("saved", "resnet18", "fp32", 16, ALL_CORES)),
    ),
    "fast": tuple(
        Entry(replace(cell, precision="fast", threads=threads), BEST)
        for cell, threads in product(_RESNET50, (ALL_CORES, 1))
    ),
    "models": tuple(
        Entry(_infer(model, batch, dtype), BEST)
        for model, dtype, batch in product(("resnet18", "resnet101", "resnext50_32x4d"), DTYPES, (1, 16))
    ),
    # Batches 1 and 16 are main's. One thread takes 20 s for 64 images, all peers together.
    "sweep": tuple(
        Entry(_infer("resnet50", batch, dtype, threads), QUICK, rounds=3)
        for dtype, threads, batch in product(DTYPES, (1, ALL_CORES), SWEEP_BATCHES)
        if batch not in (1, 16)
    ),
    "neighbours": tuple(
        Entry(replace(_infer("resnet50", 1, dtype), neighbour=neighbour), (OURS, PLAIN, "openvino"), rounds=9)
        for dtype, neighbour in product(DTYPES, ("busy", "pinned"))
    ),
}


def choose(patterns: list[str], threads: list[int]) -> list[Entry]:
    """The entries a command line names: suites, globs over their cells' names, or exact names of any cell.

    Raises:
        ValueError: a pattern that no cell matches.
    """
    by_suite = {name: _with_threads(entries, threads) for name, entries in SUITES.items()}
    known = _distinct([entry for entries in by_suite.values() for entry in entries])
    chosen: list[Entry] = []
    for pattern in patterns or ["main"]:
        matches = by_suite.get(pattern) or [entry for entry in known if _matches(entry.cell, pattern)]
        if not matches:
            try:
                matches = [Entry(Cell.parse(pattern))]
            except ValueError as error:
                names = ", ".join([*SUITES, *(str(entry.cell) for entry in known)])
                raise ValueError(f"--cells: {pattern!r} matches none of {names}, and as a {error}") from None
        chosen += matches
    return _distinct(chosen)


def _matches(cell: Cell, pattern: str) -> bool:
    """A pattern without threads means every number of them."""
    plain = replace(cell, precision="default", neighbour="none")
    return fnmatch(str(cell), pattern) or (cell == plain and fnmatch(str(cell), f"{pattern}-t*"))


def _with_threads(entries: tuple[Entry, ...], threads: list[int]) -> list[Entry]:
    filled = [
        replace(entry, cell=replace(entry.cell, threads=entry.cell.threads or count))
        for count in threads
        for entry in entries
    ]
    return _distinct(filled)


def _distinct(entries: list[Entry]) -> list[Entry]:
    """The first entry of each cell."""
    first: dict[Cell, Entry] = {}
    for entry in entries:
        first.setdefault(entry.cell, entry)
    return list(first.values())
