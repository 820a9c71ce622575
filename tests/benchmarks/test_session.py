"""A cell from end to end with workers that cost nothing, and once with real ones."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from benchmarks.models import contestant, session
from benchmarks.models.cells import Cell
from benchmarks.models.contestant import Contestant
from benchmarks.models.job import Job
from benchmarks.models.judge import compare_outputs
from benchmarks.models.neighbour import neighbour_of
from benchmarks.models.peers import PEERS, Peer
from benchmarks.models.protocol import Worker

CHILD = """
import sys
from benchmarks.models.protocol import claim_stdout, send
replies = claim_stdout()
for line in sys.stdin:
    calls = int(line.split()[1])
    send(replies, {"seconds": [0.25] * calls, "minor_faults": 4 * calls, "peak_bytes": 7})
"""


def waiting(name: str, folder: Path, program: str = CHILD) -> Contestant:
    worker = Worker(
        [sys.executable, "-c", program], contestant.worker_environment(1), Path.cwd(), folder / name
    )
    return Contestant(PEERS[name], worker, first_seconds=0.25)


def test_every_round_visits_everyone_and_a_dead_peer_drops_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "SETTLE_SECONDS", 0.0)
    monkeypatch.chdir(Path(__file__).parents[2])
    contestants = [
        waiting("fusedres", tmp_path),
        waiting("eager", tmp_path),
        waiting("ort", tmp_path, "exit(3)"),
    ]
    order: list[str] = []
    session.time_rounds(contestants, 3, order.append)
    for each in contestants:
        each.close()
    results = {each.peer.name: each.result() for each in contestants}
    # 0.6 s a visit at 0.25 s a call: a warming call, then two that count
    assert results["fusedres"]["seconds"] == [[0.25, 0.25]] * 3
    assert results["fusedres"]["faults_per_call"] == [4.0] * 3
    assert results["ort"]["status"] == "failed" and "exit status 3" in results["ort"]["reason"]
    firsts = [line.split(": ")[1] for line in order if line.startswith(("round 1", "round 2"))]
    assert firsts[0] == PEERS["fusedres"].label and PEERS["eager"].label in firsts[3:4]


def test_beside_a_neighbour_every_round_counts_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "SETTLE_SECONDS", 0.0)
    monkeypatch.chdir(Path(__file__).parents[2])
    ours = waiting("fusedres", tmp_path)
    cell = Cell("infer", "resnet18", "fp32", 1, 1, neighbour="pinned")
    with neighbour_of(cell, tmp_path) as neighbour:
        session.time_rounds([ours], 2, lambda words: None, neighbour)
    ours.close()
    assert ours.result()["seconds"] == ours.result()["alone_seconds"] == [[0.25, 0.25]] * 2
    with neighbour_of(Cell("infer", "resnet18", "fp32", 1, 1), tmp_path) as nobody:
        assert nobody is None


def outputs(job: Job, **logits: torch.Tensor) -> None:
    for peer, tensor in logits.items():
        torch.save({"logits": tensor}, job.outputs_path(peer))


def test_parity_is_red_beyond_twice_the_error_of_torch(tmp_path: Path) -> None:
    job = Job(Cell("infer", "resnet18", "fp32", 1, 1), tmp_path)
    exact = torch.ones(1, 10, dtype=torch.float64)
    contestants = [Contestant(PEERS["fusedres"]), Contestant(PEERS["eager"])]
    outputs(job, exact=exact, eager=exact.float() + 1e-5, fusedres=exact.float() - 1.9e-5)
    verdict = compare_outputs(job, contestants)
    assert verdict["green"] and 0.9 < verdict["share"] < 1.0
    assert contestants[0].error == pytest.approx(1.9e-5, rel=1e-2)
    outputs(job, fusedres=exact.float() + 2.5e-5)
    assert not compare_outputs(job, contestants)["green"]
    outputs(job, fusedres=exact.float() * float("nan"))
    verdict = compare_outputs(job, contestants)
    assert not verdict["green"] and verdict["share"] is None


def test_without_outputs_there_is_no_parity(tmp_path: Path) -> None:
    verdict = compare_outputs(Job(Cell("infer", "resnet18", "fp32", 1, 1), tmp_path), [])
    assert not verdict["green"]
    assert verdict["worst"] == "no outputs from exact, eager, fusedres"


@pytest.mark.slow
@pytest.mark.parametrize(
    "cell", ["infer-resnet18-fp32-b1-t1", "train-resnet18-bf16-b2-t1", "saved-resnet18-fp32-b1-t1"]
)
def test_a_real_cell(tmp_path: Path, cell: str) -> None:
    absent = Peer("absent", "absent", "none:none", ("infer", "train"), ("no-such-distribution",))
    measured = session.measure(
        Cell.parse(cell), [PEERS["fusedres"], PEERS["eager"], absent], 1, tmp_path, lambda words: None
    )
    ours, eager = measured["peers"]["fusedres"], measured["peers"]["eager"]
    if cell.startswith("saved"):
        assert 0 < ours["saved_bytes"] < eager["saved_bytes"]
        return
    assert measured["parity"]["green"], measured["parity"]
    assert measured["peers"]["absent"] == {"status": "absent", "reason": "no-such-distribution not installed"}
    assert all(len(peer["seconds"]) == 1 and peer["peak_bytes"] > 0 for peer in (ours, eager))
