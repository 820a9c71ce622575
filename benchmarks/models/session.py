"""One cell: start the workers, check parity, time them in interleaved rounds."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks.models import machine
from benchmarks.models.cells import Cell
from benchmarks.models.contestant import Contestant, start
from benchmarks.models.job import Job
from benchmarks.models.judge import compare_outputs
from benchmarks.models.neighbour import Neighbour, neighbour_of
from benchmarks.models.peers import EXACT, OURS, PLAIN, REFERENCE, Peer

#: Thread pools spin for up to 200 ms after their last work; the next worker starts after that.
SETTLE_SECONDS = 0.2
#: Compiling is mostly one thread, so two workers get ready at a time.
STARTERS = 2

Say = Callable[[str], None]


def measure(
    cell: Cell, peers: list[Peer], rounds: int, folder: Path, say: Say, tune: bool = False
) -> dict[str, Any]:
    """Everything the results file keeps of one cell."""
    job = Job(cell, folder, tune)
    say("inputs and weights")
    job.lay_out()
    contestants = [Contestant(peer) for peer in peers if cell.task in peer.tasks]
    judged = cell.task != "saved"
    starting = [*contestants, Contestant(REFERENCE)] if judged else contestants
    try:
        _start_all(starting, job, say)
        parity = compare_outputs(job, contestants) if judged else None
        if cell.task == "saved":
            _count_saved(contestants, say)
        else:
            with neighbour_of(cell, folder) as neighbour:
                time_rounds(contestants, rounds, say, neighbour)
    finally:
        for contestant in starting:
            contestant.close()
    return {
        "measured": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": machine.commit(),
        "versions": machine.versions(),
        "rounds": rounds if judged else None,
        "tuned": tune and judged,
        "parity": parity,
        "peers": {contestant.peer.name: contestant.result() for contestant in contestants},
    }


def _start_all(contestants: list[Contestant], job: Job, say: Say) -> None:
    def one(contestant: Contestant) -> None:
        name = contestant.peer.name
        # Gradients fill 100 MB a peer, and in training ours alone is judged.
        with_outputs = job.cell.task == "infer" or (job.cell.task == "train" and name in (OURS, PLAIN, EXACT))
        start(contestant, job, with_outputs)
        say(f"{contestant.peer.label}: {contestant.reason or 'ready'}")

    with ThreadPoolExecutor(STARTERS) as pool:
        list(pool.map(one, contestants))


def time_rounds(
    contestants: list[Contestant], rounds: int, say: Say, neighbour: Neighbour | None = None
) -> None:
    """Every round visits everyone once; the order turns, so that nobody always follows the same one.

    Where there is a neighbour, twice: alone, and right after that beside it.
    """
    for number in range(rounds):
        turn = number % len(contestants)
        for contestant in contestants[turn:] + contestants[:turn]:
            if contestant.running:
                say(f"round {number + 1} of {rounds}: {contestant.peer.label}")
                time.sleep(SETTLE_SECONDS)
                if neighbour is None:
                    contestant.visit()
                    continue
                contestant.visit(neighbour=False)
                with neighbour.spinning():
                    contestant.visit()


def _count_saved(contestants: list[Contestant], say: Say) -> None:
    for contestant in contestants:
        say(contestant.peer.label)
        reply = contestant.ask("saved")
        if reply is not None:
            contestant.saved_bytes = reply["saved_bytes"]
