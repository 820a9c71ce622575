"""A process that keeps one core busy when it is told to: ``python -m benchmarks.models.neighbour [CORE]``.

It answers ``spin`` and ``rest``, each with one JSON object, and waits idle after ``rest``.
"""

from __future__ import annotations

import os
import selectors
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.models import machine
from benchmarks.models.cells import Cell
from benchmarks.models.protocol import Worker, claim_stdout, send

TURNS = 100_000  # a few ms: how soon it listens
PATIENCE = 60.0


def _spin() -> None:
    for _ in range(TURNS):
        pass


def main() -> None:
    replies = claim_stdout()
    if len(sys.argv) > 1:
        os.sched_setaffinity(0, {int(sys.argv[1])})
    send(replies, {"status": "ready"})
    commands = sys.stdin.fileno()
    spinning = False
    with selectors.DefaultSelector() as selector:
        selector.register(commands, selectors.EVENT_READ)
        while True:
            if not selector.select(0 if spinning else None):
                _spin()
                continue
            said = os.read(commands, 1 << 10)
            if not said:
                return
            spinning = said.split()[-1] == b"spin"
            send(replies, {"status": "ok"})


class Neighbour:
    """The parent's side of one such process."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    @contextmanager
    def spinning(self) -> Iterator[None]:
        self._worker.ask("spin", PATIENCE)
        try:
            yield
        finally:
            self._worker.ask("rest", PATIENCE)


@contextmanager
def neighbour_of(cell: Cell, folder: Path) -> Iterator[Neighbour | None]:
    """The neighbour that the cell names, idle; none for most cells."""
    if cell.neighbour == "none":
        yield None
        return
    argv = [sys.executable, "-m", "benchmarks.models.neighbour"]
    if cell.neighbour == "pinned":
        argv.append(str(max(os.sched_getaffinity(0))))
    worker = Worker(argv, dict(os.environ), machine.ROOT, folder / f"{cell}-neighbour.log")
    try:
        worker.receive(PATIENCE)
        yield Neighbour(worker)
    finally:
        worker.close()


if __name__ == "__main__":
    main()
