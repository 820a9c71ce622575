"""What `make kernels` measures, and every budget it is held to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.kernels.budgets import IMAGES, MOST_INSTRUCTIONS, Finding, findings
from benchmarks.kernels.device import run
from benchmarks.kernels.facts import Facts, Library
from benchmarks.kernels.layers import Case, cases
from benchmarks.kernels.network import WAYS, Network, measure

Measured = list[tuple[Case, Facts]]


def counted(
    library: Library, pattern: str, uses: Sequence[str] = ("*",), backend: str = "cuda"
) -> list[Case]:
    """The convolutions that match a glob in each use: executed small, weight gradients listed at IMAGES."""
    wanted = ["--backend", backend, *(word for use in uses for word in ("--use", use))]
    calls = run("layers", pattern, *wanted)
    listed: list[dict[str, Any]] = []
    if any(call["use"].startswith("wgrad") for call in calls):
        at_size = ["--backend", backend, "--use", "wgrad*", "--batch", str(IMAGES)]
        listed = run("layers", pattern, *at_size, list_only=True)
    return cases(calls, listed, library)


def convolutions(
    library: Library, pattern: str, uses: Sequence[str] = ("*",), backend: str = "cuda"
) -> Measured:
    """With what the compiler made of them. Triton's are shown beside the library's, and held to no budget."""
    return [(case, case.facts(library)) for case in counted(library, pattern, uses, backend)]


def networks(library: Library) -> list[Network]:
    return [measure(way, library) for way in WAYS]


def findings_of(measured: Measured) -> list[Finding]:
    """Of counters and of the compiled code."""
    found = findings([case for case, _ in measured])
    found += [Finding("bytes spilled", str(case), facts.spilled, 0) for case, facts in measured]
    return found + [
        Finding("SASS / HMMA, forward", str(case), facts.instructions, MOST_INSTRUCTIONS)
        for case, facts in measured
        if facts.instructions is not None and case.is_forward
    ]


def findings_of_networks(found: Sequence[Network]) -> list[Finding]:
    """Bytes and launches of whole networks."""
    judged = []
    for network in found:
        way = network.way
        judged.append(Finding("GB at batch 256", way.name, network.gigabytes, way.most_gigabytes))
        if way.convolves:
            judged.append(Finding("torch's convolutions", way.name, network.library_convolutions, 0))
        if way.most_launches:
            judged.append(Finding("launches", way.name, len(network.launches), way.most_launches))
        if way.most_on_activations:
            on = Finding("launches on activations", way.name, network.on_activations, way.most_on_activations)
            judged.append(on)
    return judged
