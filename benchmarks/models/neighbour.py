"""The busy neighbour of a cell: another process that spins while peers are timed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.models import machine
from benchmarks.models.cells import Cell
from benchmarks.models.contestant import CALL_TIMEOUT, START_TIMEOUT
from benchmarks.models.protocol import Worker


class Neighbour:
    """The parent's side of one such process."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    @contextmanager
    def spinning(self) -> Iterator[None]:
        self._worker.ask("spin", CALL_TIMEOUT)
        try:
            yield
        finally:
            self._worker.ask("rest", CALL_TIMEOUT)


@contextmanager
def neighbour_of(cell: Cell, folder: Path) -> Iterator[Neighbour | None]:
    """The neighbour that the cell names, idle; none for most cells."""
    if cell.neighbour == "none":
        yield None
        return
    argv = [sys.executable, "-m", "benchmarks.models.spinner"]
    if cell.neighbour == "pinned":
        argv.append(str(max(os.sched_getaffinity(0))))
    worker = Worker(argv, dict(os.environ), machine.ROOT, folder / f"{cell}-neighbour.log")
    try:
        worker.receive(START_TIMEOUT)
        yield Neighbour(worker)
    finally:
        worker.close()
