"""The rule that chooses, on samples made up and on samples taken."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable

import pytest
import torch

from fusedres.plan import _timing
from fusedres.plan._timing import LEAST_ROUNDS, MOST_ROUNDS, by_chance, decide, interleave, obvious

CPU = torch.device("cpu")


def noisy(random_: random.Random, seconds: float, rounds: int) -> list[float]:
    """Samples of a machine that is busy half of the time, and then up to three times as slow."""
    return [
        seconds * (1 + 0.02 * abs(random_.gauss(0, 1)) + (random_.random() < 0.5) * 2 * random_.random())
        for _ in range(rounds)
    ]


def test_the_fastest_of_the_clearly_faster_is_taken() -> None:
    samples = {"plain": [1.0] * 9, "stats": [0.8] * 9, "mainloop": [0.7] * 9, "pointwise": [1.2] * 9}
    verdict = decide(samples, "plain")
    assert (verdict.chosen, verdict.ratio, verdict.rounds) == ("mainloop", 0.7, 9)
    assert verdict.why == "0.70 (0.70–0.70) of plain's time in 9 rounds"


@pytest.mark.parametrize("ratio", [0.98, 1.0, 1.5])
def test_plain_stays_unless_something_is_clearly_faster(ratio: float) -> None:
    verdict = decide({"plain": [1.0] * 25, "stats": [ratio] * 25}, "plain")
    assert verdict.chosen == "plain"
    assert f"stats took {ratio:.2f}" in verdict.why


def test_a_median_alone_does_not_persuade() -> None:
    """Faster by much in four rounds of seven: equals do that every other time."""
    assert decide({"plain": [1.0] * 7, "stats": [0.5] * 4 + [1.1] * 3}, "plain").chosen == "plain"


def test_the_sign_test() -> None:
    assert by_chance([0.9] * 5) == 1 / 32
    assert by_chance([0.9, 1.1]) == 3 / 4
    assert by_chance([1.1] * 4) == 1.0
    assert by_chance([0.9] * 18 + [1.1] * 7) == pytest.approx(0.0216, abs=1e-4)


def test_equals_on_a_busy_machine_stay_plain() -> None:
    """Chosen and confirmed, as ``tune`` does: of 2000 tunings among equals at most 1 in 100 leaves plain."""
    random_, left = random.Random(0), 0
    for _ in range(2000):
        names = ("plain", "pointwise", "stats", "mainloop")
        first = decide({name: noisy(random_, 1.0, MOST_ROUNDS) for name in names}, "plain").chosen
        if first != "plain":
            again = decide({n: noisy(random_, 1.0, MOST_ROUNDS) for n in ("plain", first)}, "plain")
            left += again.chosen != "plain"
    assert left <= 20


def test_a_faster_one_is_found_on_a_busy_machine() -> None:
    """The rule is not so careful that nothing is ever chosen: a third faster, and most tunings notice."""
    random_ = random.Random(0)
    found = sum(
        decide(
            {
                "plain": noisy(random_, 1.0, MOST_ROUNDS),
                "stats": noisy(random_, 0.67, MOST_ROUNDS),
            },
            "plain",
        ).chosen
        == "stats"
        for _ in range(300)
    )
    assert found >= 255


def test_obvious() -> None:
    assert obvious({"plain": [1.0] * 7, "stats": [0.8] * 7}, "plain")
    assert obvious({"plain": [1.0] * 7, "stats": [1.2] * 7, "mainloop": [1.3] * 7}, "plain")
    assert not obvious({"plain": [1.0] * 7, "stats": [0.8] * 6 + [0.95]}, "plain")
    assert not obvious({"plain": [1.0] * 7, "stats": [1.2] * 7, "mainloop": [1.05] * 7}, "plain")


class Calls:
    """Candidates that take what a table says, and a log of when they were timed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: dict[str, float]) -> None:
        self.log: list[str] = []
        self.calls: dict[str, Callable[[], str]] = {name: (lambda name=name: name) for name in seconds}

        def timed(call: Callable[[], str], calls: int, device: torch.device) -> float:
            self.log.append(call())
            return seconds[call()]

        monkeypatch.setattr(_timing, "seconds", timed)


def test_rounds_start_with_another_candidate_each(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(monkeypatch, {"plain": 1.0, "stats": 1.0})
    samples = interleave(calls.calls, "plain", CPU)
    warm = 4
    assert calls.log[warm : warm + 4] == ["plain", "stats", "stats", "plain"]
    assert {len(values) for values in samples.values()} == {MOST_ROUNDS}


def test_rounds_end_where_the_answer_is_obvious_or_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clear = Calls(monkeypatch, {"plain": 1.0, "stats": 0.5})
    assert len(interleave(clear.calls, "plain", CPU)["plain"]) == LEAST_ROUNDS
    level = Calls(monkeypatch, {"plain": 1.0, "stats": 1.0})
    late = time.monotonic() - 1
    assert len(interleave(level.calls, "plain", CPU, late)["plain"]) == LEAST_ROUNDS


def test_samples_are_seconds_a_call() -> None:
    def spin() -> None:
        end = time.thread_time() + 0.002
        while time.thread_time() < end:
            pass

    samples = interleave({"plain": spin, "twice": lambda: (spin(), spin())}, "plain", CPU, -math.inf)
    ratio = sorted(b / a for a, b in zip(samples["plain"], samples["twice"], strict=True))[LEAST_ROUNDS // 2]
    assert min(samples["plain"]) >= 0.002 and ratio == pytest.approx(2.0, rel=0.2)
