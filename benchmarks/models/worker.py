"""One peer in a process of its own: ``python -m benchmarks.models.worker PEER CELL FOLDER [tune]``.

It answers every line with one JSON object and waits idle in between. Commands: ``outputs`` writes what
parity compares, ``warm`` calls the step until it no longer compiles or allocates, ``run N`` times N
calls, ``saved`` counts bytes saved for backward.
"""

from __future__ import annotations

import gc
import resource
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

from benchmarks.models.cells import Cell
from benchmarks.models.job import Job, Program, Unsupported
from benchmarks.models.peers import PEERS, REFERENCE
from benchmarks.models.protocol import Reply, claim_stdout, send
from fusedres.cli.measure import saved_bytes


def resident(field: str) -> int:
    """Bytes of physical memory that the process holds (VmRSS), or the most it has held (VmHWM)."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return int(fields[field].split()[0]) * 1024


class PeakMemory:
    """The most physical memory the process held; Linux alone lets us start the count anew."""

    def __init__(self) -> None:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # proc(5): 5 resets the peak resident set size

    def bytes(self) -> int:
        return resident("VmHWM")


def timed(step: Callable[[], object], calls: int) -> Reply:
    """``calls`` calls, each timed, with their page faults and the peak of resident memory."""
    gc.collect()
    seconds = []
    peak = PeakMemory()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(calls):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    return {"seconds": seconds, "minor_faults": faults, "peak_bytes": peak.bytes()}


def answer(program: Program, job: Job, peer: str, line: str) -> Reply:
    command, *arguments = line.split()
    if command == "outputs":
        torch.save(program.outputs(), job.outputs_path(peer))
        return {"status": "ok"}
    if command == "warm":
        program.step()
        return timed(program.step, 1)
    if command == "run":
        return timed(program.step, int(arguments[0]))
    if command == "saved":
        if program.forward is None or program.model is None:
            raise ValueError(f"saved: needs a training program; got the cell {job.cell}")
        return {"saved_bytes": saved_bytes(program.forward, program.model)}
    raise ValueError(f"worker: command must be outputs, warm, run N or saved; got {line!r}")


def failure(error: Exception) -> Reply:
    traceback.print_exc()
    return {"status": "failed", "reason": f"{type(error).__name__}: {error}".splitlines()[0][:300]}


def main() -> None:
    replies = claim_stdout()
    peer, cell, folder, *tune = sys.argv[1:]
    job = Job(Cell.parse(cell), Path(folder), tune == ["tune"])
    torch.set_num_threads(job.cell.threads)
    base = resident("VmRSS")  # with its libraries, before there is a model
    try:
        program = {**PEERS, REFERENCE.name: REFERENCE}[peer].prepare()(job)
    except Unsupported as reason:
        send(replies, {"status": "unsupported", "reason": str(reason)})
        return
    except Exception as error:  # whatever a peer raises is its result in this run
        send(replies, failure(error))
        return
    send(replies, {"status": "ready", "base_bytes": base})
    for line in sys.stdin:
        try:
            send(replies, answer(program, job, peer, line))
        except Exception as error:
            send(replies, failure(error))


if __name__ == "__main__":
    main()
