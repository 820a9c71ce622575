"""Timing candidates against each other on a machine that may be busy."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

#: Seconds. Shorter samples drown in the clock's and Python's noise, longer ones seldom pass without being
#: interrupted where others share the cores: many short ones have the steadier median.
SHORTEST_SAMPLE = 0.004
#: Rounds to take at least, at most, and the seconds after which there are no more than the least.
LEAST_ROUNDS, MOST_ROUNDS, LONG_ENOUGH = 7, 41, 10.0
#: A candidate must take at most this share of the baseline's time, ...
CLEARLY_FASTER = 0.97
#: ... and be faster in so many rounds that equal ones would be so less often than this (sign test).
CHANCE = 0.05
#: Where every round agrees by this much, more rounds change nothing.
OBVIOUS = 0.10

#: Windows counts a thread's time in steps of 15 ms.
_FINE_THREAD_TIME = time.get_clock_info("thread_time").resolution < 1e-6

Samples = Mapping[str, list[float]]


@dataclass(frozen=True)
class Verdict:
    """Who is to run. ``ratio`` is the chosen one's time over the baseline's: the median of the rounds'."""

    chosen: str
    baseline: str
    ratio: float
    quartiles: tuple[float, float]
    rounds: int
    why: str


def ratios(samples: Samples, name: str, baseline: str) -> list[float]:
    """A candidate's time over the baseline's, round by round: what slows a whole round cancels out."""
    return [mine / base for mine, base in zip(samples[name], samples[baseline], strict=True)]


def quartiles(values: list[float]) -> tuple[float, float]:
    """The first and third quartile, by linear interpolation; a single value is both."""
    if len(values) == 1:
        return values[0], values[0]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, third


def decide(samples: Samples, baseline: str) -> Verdict:
    """The fastest of the candidates that are clearly faster than ``baseline``; where none is, ``baseline``.

    Clearly: by :data:`CLEARLY_FASTER` in the median, and in so many rounds that it is no :data:`CHANCE`.
    """
    found = {name: ratios(samples, name, baseline) for name in samples if name != baseline}
    medians = {name: statistics.median(values) for name, values in found.items()}
    clear = [n for n, values in found.items() if medians[n] <= CLEARLY_FASTER and by_chance(values) <= CHANCE]
    rounds = len(samples[baseline])
    if clear:
        best = min(clear, key=lambda name: medians[name])
        words = f"{_spread(found[best])} of {baseline}'s time in {rounds} rounds"
        return Verdict(best, baseline, medians[best], quartiles(found[best]), rounds, words)
    words = f"nothing else was clearly faster in {rounds} rounds"
    if found:
        best = min(found, key=lambda name: medians[name])
        words += f"; {best} took {_spread(found[best])} of its time"
    return Verdict(baseline, baseline, 1.0, (1.0, 1.0), rounds, words)


def by_chance(ratios: list[float]) -> float:
    """How often equals would win at least so many rounds: the sign test's one-sided p."""
    wins, rounds = sum(ratio < 1 for ratio in ratios), len(ratios)
    return sum(math.comb(rounds, k) for k in range(wins, rounds + 1)) / float(2**rounds)


def _spread(values: list[float]) -> str:
    first, third = quartiles(values)
    return f"{statistics.median(values):.2f} ({first:.2f}–{third:.2f})"


def obvious(samples: Samples, baseline: str) -> bool:
    """Whether more rounds cannot change :func:`decide`'s answer, but among candidates of like speed."""
    others = [ratios(samples, name, baseline) for name in samples if name != baseline]
    return any(max(values) < 1 - OBVIOUS for values in others) or all(
        min(values) > 1 + OBVIOUS for values in others
    )


def interleave(
    calls: Mapping[str, Callable[[], object]],
    baseline: str,
    device: torch.device,
    deadline: float = math.inf,
) -> dict[str, list[float]]:
    """Seconds a call of each candidate, one sample a round; every round starts with another candidate.

    It ends after :data:`MOST_ROUNDS`; after :data:`LEAST_ROUNDS` also where the answer is obvious, after
    :data:`LONG_ENOUGH`, or when ``time.monotonic()`` has passed ``deadline``.
    """
    deadline = min(deadline, time.monotonic() + LONG_ENOUGH)
    names = list(calls)
    repeats = {name: _repeats(call, device) for name, call in calls.items()}
    samples: dict[str, list[float]] = {name: [] for name in names}
    for number in range(MOST_ROUNDS):
        for offset in range(len(names)):
            name = names[(number + offset) % len(names)]
            samples[name].append(seconds(calls[name], repeats[name], device))
        if number + 1 >= LEAST_ROUNDS and (obvious(samples, baseline) or time.monotonic() > deadline):
            break
    return samples


def _repeats(call: Callable[[], object], device: torch.device) -> int:
    seconds(call, 1, device)  # the first calls pack weights, find memory, and compile on a GPU
    return max(1, math.ceil(SHORTEST_SAMPLE / max(seconds(call, 1, device), 1e-6)))


def seconds(call: Callable[[], object], calls: int, device: torch.device) -> float:
    """Mean seconds of ``calls`` calls, after one that only warms caches: by events on a GPU, else by a clock.

    One thread's own time leaves out the moments in which others had the core; of several threads, one
    waiting for another is part of what a call takes, and the wall's clock counts it.
    """
    call()
    if device.type == "cuda":
        stream = torch.cuda.current_stream(device)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        torch.cuda.synchronize(device)
        start.record(stream)
        for _ in range(calls):
            call()
        end.record(stream)
        torch.cuda.synchronize(device)
        return float(start.elapsed_time(end)) / 1e3 / calls
    clock = time.thread_time if torch.get_num_threads() == 1 and _FINE_THREAD_TIME else time.perf_counter
    began = clock()
    for _ in range(calls):
        call()
    return (clock() - began) / calls
