"""Parity of whole models: ours held to the 2× rule, or its precision's factor, before anything is timed."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

import fusedres
from benchmarks.models.contestant import Contestant
from benchmarks.models.job import Job
from benchmarks.models.peers import EXACT, OURS, PLAIN
from fusedres.cli.parity import Parity, two_times_rule
from fusedres.cli.training import Step, judge

Verdict = dict[str, Any]


def compare_outputs(job: Job, contestants: list[Contestant]) -> Verdict:
    """Hold ours to the rule, and note every peer's rms error as a share of the reference's rms."""

    def read(peer: str) -> dict[str, Any] | None:
        path = job.outputs_path(peer)
        return torch.load(path, weights_only=True) if path.exists() else None

    outputs = {name: read(name) for name in (EXACT, PLAIN, OURS)}
    missing = [name for name, found in outputs.items() if found is None]
    if missing:
        return {"green": False, "share": None, "worst": f"no outputs from {', '.join(missing)}", "kinds": []}
    exact, plain, ours = (found for found in outputs.values() if found is not None)
    for contestant in contestants:
        found = read(contestant.peer.name)
        if found is not None:
            truth = exact.get("truth", exact)
            contestant.error = _relative_rms(found["logits"], truth["logits"])
    with fusedres.precision(job.cell.precision):  # which has factors of its own
        if job.cell.task == "infer":
            sides = (side["logits"] for side in (ours, plain, exact))
            return _verdict((two_times_rule("logits", *sides),))
        return _verdict(judge(Step(**ours), Step(**plain), Step(**exact["truth"]), Step(**exact["moved"])))


def _verdict(kinds: tuple[Parity, ...]) -> Verdict:
    """``share`` is the largest error as a share of what the rule allows: at most 1 is green."""
    shares = {
        f"{kind.name}, {measure}": error / allowed if allowed else float(error > 0)
        for kind in kinds
        for measure, error, allowed in (
            ("max", kind.ours_max, kind.allowed_max),
            ("rms", kind.ours_rms, kind.allowed_rms),
        )
    }
    finite = all(share == share and share < float("inf") for share in shares.values())
    worst = max(shares, key=lambda name: shares[name] if shares[name] == shares[name] else float("inf"))
    return {
        "green": all(kind.passed for kind in kinds),
        "share": shares[worst] if finite else None,
        "worst": worst,
        "kinds": [asdict(kind) for kind in kinds] if finite else [],
    }


def _relative_rms(logits: Tensor, exact: Tensor) -> float:
    difference = logits.double() - exact.double()
    return float(difference.square().mean().sqrt() / exact.double().square().mean().sqrt())
