"""Parity, then seconds a call of everyone in interleaved rounds; who fails is named and left out."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from fusedres.cli.measure import Timing, interleave, speed_ratio
from fusedres.cli.parity import Parity

OURS = "fusedres"

#: A contender's step, made and warmed where it can fail alone.
Maker = Callable[[], Callable[[], object]]


class Absent(RuntimeError):
    """A contender that is not installed here; the message says what is missing."""


@dataclass(frozen=True)
class Row:
    """One contender: its timing, or why there is none. ``ratio`` is how many times faster ours is."""

    name: str
    status: str
    reason: str | None = None
    seconds: tuple[float, ...] = ()
    ratio: float | None = None
    quartiles: tuple[float, float] | None = None


@dataclass(frozen=True)
class Outcome:
    """A contest's verdict and rows. Nothing is timed where ours has no parity."""

    name: str
    parity: tuple[Parity, ...]
    rows: tuple[Row, ...] = ()
    error: str | None = None

    @property
    def passed(self) -> bool:
        ours = [row.status for row in self.rows if row.name == OURS]
        return self.error is None and all(p.passed for p in self.parity) and ours == ["measured"]


def held(
    name: str,
    parity: Callable[[], tuple[Parity, ...]],
    makers: Mapping[str, Maker],
    rounds: int,
    device: torch.device,
) -> Outcome:
    """The contest; whatever it raises is its result, so that the report has the others too."""
    try:
        verdict = parity()
        rows = _rows(makers, rounds, device) if all(p.passed for p in verdict) else ()
        return Outcome(name, verdict, rows)
    except Exception:  # a launch that fails, memory that is not there: to be sent, and no end of the run
        return Outcome(name, (), error=traceback.format_exc())


def _rows(makers: Mapping[str, Maker], rounds: int, device: torch.device) -> tuple[Row, ...]:
    steps: dict[str, Callable[[], object]] = {}
    left_out: dict[str, Row] = {}
    for name, make in makers.items():
        try:
            step = make()
            step()
            steps[name] = step
        except Absent as reason:
            left_out[name] = Row(name, "absent", str(reason))
        except Exception as error:  # a peer's failure is its result
            left_out[name] = Row(name, "failed", f"{type(error).__name__}: {error}".splitlines()[0][:300])
    timings = {timing.name: timing for timing in interleave(steps, rounds, device)[0]}
    return tuple(left_out.get(name) or _row(timings[name], timings.get(OURS)) for name in makers)


def _row(timing: Timing, ours: Timing | None) -> Row:
    if ours is None:
        return Row(timing.name, "measured", seconds=timing.seconds)
    ratio = speed_ratio(ours, timing)
    return Row(timing.name, "measured", None, timing.seconds, ratio.median_of_pairs, ratio.quartiles)
