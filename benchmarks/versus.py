"""Ours against the plain PyTorch composition of the tests, in one process, call by call in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.models.timing import Spread, spread
from tests._parity import assert_within_two_x

#: Rounds that fit into this many seconds, within the bounds; a median of fewer than 7 has no quartiles.
SECONDS_A_CASE = 1.0
FEWEST_ROUNDS, MOST_ROUNDS = 7, 100
WARM_UP = 2


@dataclass(frozen=True)
class Peaks:
    """What this machine reaches, measured in the same run: bytes copied and matrix products, a second."""

    bytes: float
    flops: dict[torch.dtype, float]


@dataclass(frozen=True)
class Work:
    """The least a case must do: every input read once, every output written once, and the arithmetic."""

    bytes: int
    flops: int
    dtype: torch.dtype


@dataclass(frozen=True)
class Outcome:
    """One case, as its line of the report says it."""

    name: str
    seconds: Spread
    ratio: Spread
    work: Work
    share: float
    bound: str

    def __str__(self) -> str:
        taken = self.seconds.median
        parts = [f"{1e6 * taken:.1f} us"]
        if self.work.bytes:
            parts.append(f"{self.work.bytes / taken / 1e9:.1f} GB/s")
        if self.work.flops:
            parts.append(f"{self.work.flops / taken / 1e12:.3f} TFLOP/s")
        parts.append(f"{self.ratio.median:.2f}x plain ({self.ratio.low:.2f}-{self.ratio.high:.2f})")
        parts.append(f"{100 * self.share:.0f}% of the {self.bound} peak")
        return f"{self.name}: {', '.join(parts)}"


def measure_peaks(device: torch.device) -> Peaks:
    """memcpy over 256 MiB, beyond most caches, and square matrix products of 2048."""
    source = torch.ones(2**26, device=device)
    target = torch.empty_like(source)
    copied = 2 * source.nbytes / _best(lambda: target.copy_(source), device)
    side, flops = 2048, {}
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.ones(side, side, device=device, dtype=dtype)
        flops[dtype] = 2 * side**3 / _best(lambda a=a: a @ a, device)  # type: ignore[misc]
    return Peaks(copied, flops)


def _best(call: Callable[[], object], device: torch.device, times: int = 5) -> float:
    return min(seconds(call, device) for _ in range(times))


def seconds(call: Callable[[], object], device: torch.device) -> float:
    wait(device)
    start = time.perf_counter()
    call()
    wait(device)
    return time.perf_counter() - start


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def check_parity(
    name: str,
    ours: Callable[..., Any],
    plain: Callable[..., Any],
    arguments: Sequence[Any],
    comparable: Callable[..., Any],
) -> int:
    """The 2× rule, before anything is timed; returns the bytes of our outputs.

    Raises:
        AssertionError: parity is red, so no speed-up is reported.
    """
    found = _tuple(ours(*arguments))
    expected = _tuple(plain(*arguments))
    exact = _tuple(plain(*map(_double, arguments)))
    for i, (o, p, e) in enumerate(zip(_tuple(comparable(*found)), expected, exact, strict=True)):
        if not e.is_floating_point():
            continue  # an index: where two values are equal but for rounding, either may be the larger
        if e.numel():
            assert_within_two_x(o, e, p, f"{name}, output {i}")
    return nbytes(found)


def nbytes(values: Sequence[Any]) -> int:
    return sum(value.nbytes for value in values if isinstance(value, Tensor))


def rounds_that_fit(estimate: float) -> int:
    """How many rounds of ``estimate`` seconds a case gets."""
    return max(FEWEST_ROUNDS, min(MOST_ROUNDS, int(SECONDS_A_CASE / estimate)))


def judge(name: str, ours: Sequence[float], plain: Sequence[float], work: Work, peaks: Peaks) -> Outcome:
    """Ours as a share of what the slower of memory and arithmetic allows at the measured peaks."""
    taken = spread(ours)
    at_least = {"memory": work.bytes / peaks.bytes, "compute": work.flops / peaks.flops[work.dtype]}
    bound = max(at_least, key=lambda kind: at_least[kind])
    ratio = spread([p / o for p, o in zip(plain, ours, strict=True)])
    return Outcome(name, taken, ratio, work, at_least[bound] / taken.median, bound)


def _tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def _double(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
