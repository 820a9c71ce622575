"""A peer in one cell: its process, and what has been found out about it."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from typing import Any

from benchmarks.models import machine
from benchmarks.models.job import Job
from benchmarks.models.peers import EXACT, Peer
from benchmarks.models.protocol import Reply, Worker, WorkerError

#: A compile of a training step takes two minutes on two slow cores.
START_TIMEOUT = 600.0
CALL_TIMEOUT = 300.0
#: A visit to a worker lasts about this long, so that fast steps are timed over several calls.
VISIT_SECONDS = 0.6
MAX_CALLS = 10


@dataclass
class Contestant:
    """A peer with its process and what has been found out about it."""

    peer: Peer
    worker: Worker | None = None
    status: str = "measured"
    reason: str | None = None
    first_seconds: float = 0.0
    rounds: list[list[float]] = field(default_factory=list)
    #: The same rounds without the neighbour, in a cell that has one.
    alone: list[list[float]] = field(default_factory=list)
    faults: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    base_bytes: int = 0
    saved_bytes: int | None = None
    error: float | None = None

    @property
    def running(self) -> bool:
        return self.worker is not None

    def drop(self, status: str, reason: str) -> None:
        self.status, self.reason = status, reason
        self.close()

    def close(self) -> None:
        if self.worker is not None:
            self.worker.close()
            self.worker = None

    def ask(self, command: str, timeout: float = CALL_TIMEOUT) -> Reply | None:
        """The worker's reply; ``None`` where it fails, which ends its part in the cell."""
        if self.worker is None:
            return None
        try:
            return self.worker.ask(command, timeout)
        except WorkerError as error:
            self.drop("failed", str(error))
            return None

    def visit(self, neighbour: bool = True) -> None:
        """One round: a warming call where calls are short, then the timed ones.

        Without the ``neighbour`` of a cell that has one, the times alone are kept.
        """
        calls = max(1, min(MAX_CALLS, int(VISIT_SECONDS / max(self.first_seconds, 1e-6))))
        reply = self.ask(f"run {calls + (calls > 1)}")
        if reply is not None:
            seconds = reply["seconds"]
            kept = seconds[1:] if calls > 1 else seconds
            if not neighbour:
                self.alone.append(kept)
                return
            self.rounds.append(kept)
            self.faults.append(reply["minor_faults"] / len(seconds))
            self.peak_bytes = max(self.peak_bytes, reply["peak_bytes"])

    def result(self) -> dict[str, Any]:
        if self.status != "measured":
            return {"status": self.status, "reason": self.reason}
        found: dict[str, Any] = {"status": self.status}
        if self.saved_bytes is not None:
            found["saved_bytes"] = self.saved_bytes
        if self.rounds:
            found |= {"seconds": self.rounds, "faults_per_call": self.faults}
            found |= {"base_bytes": self.base_bytes, "peak_bytes": self.peak_bytes}
            found |= {"alone_seconds": self.alone} if self.alone else {}
        if self.error is not None:
            found["error"] = self.error
        return found


def worker_environment(threads: int) -> dict[str, str]:
    count = str(threads)
    return os.environ | {
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "PYTHONUNBUFFERED": "1",
        "FUSEDRES_PLANS": "0",  # what somebody tuned here before is no part of the result
    }


def start(contestant: Contestant, job: Job, with_outputs: bool) -> None:
    """Start its process and bring it to where it only waits to be timed."""
    peer, cell = contestant.peer, job.cell
    reason = peer.missing()
    if reason is not None:
        contestant.drop("absent", reason)
        return
    argv = [sys.executable, "-m", "benchmarks.models.worker", peer.name, str(cell), str(job.folder)]
    argv += ["tune"] if job.tune else []
    log = job.folder / f"{cell}-{peer.name}.log"
    worker = contestant.worker = Worker(argv, worker_environment(cell.threads), machine.ROOT, log)
    try:
        greeting = worker.receive(START_TIMEOUT)
    except WorkerError as error:
        contestant.drop("failed", str(error))
        return
    if greeting["status"] != "ready":
        contestant.drop(greeting["status"], greeting["reason"])
        return
    contestant.base_bytes = greeting["base_bytes"]
    if with_outputs:
        contestant.ask("outputs", START_TIMEOUT)
    if peer.name == EXACT:
        contestant.close()
    elif cell.task != "saved":
        warmed = contestant.ask("warm", START_TIMEOUT)
        if warmed is not None and warmed["seconds"][0] < VISIT_SECONDS:  # it may still have grown the heap
            warmed = contestant.ask("warm", CALL_TIMEOUT)
        contestant.first_seconds = warmed["seconds"][0] if warmed else 0.0
