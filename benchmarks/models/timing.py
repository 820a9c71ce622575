"""Medians and spreads of what was measured in interleaved rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Spread:
    """A median with its quartiles."""

    median: float
    low: float
    high: float


def quantile(values: Sequence[float], q: float) -> float:
    """Linear interpolation between order statistics, as numpy's default."""
    ordered = sorted(values)
    position = q * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles.

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("spread: `values` must not be empty; got []")
    return Spread(median(values), quantile(values, 0.25), quantile(values, 0.75))


def per_round(rounds: Sequence[Sequence[float]]) -> list[float]:
    """One number a round: the median of its calls."""
    return [median(calls) for calls in rounds]


def ratio(peer: Sequence[Sequence[float]], ours: Sequence[Sequence[float]]) -> Spread:
    """How many times faster than the peer we are: the median of the rounds' own ratios.

    A round's two measurements stand seconds apart, so what slows the whole machine down for longer
    than that divides out; the ratio of two medians would keep it.

    Raises:
        ValueError: they were not measured in the same rounds.
    """
    if len(peer) != len(ours):
        raise ValueError(f"ratio: `peer` must have as many rounds as `ours`, {len(ours)}; got {len(peer)}")
    return spread([p / o for p, o in zip(per_round(peer), per_round(ours), strict=True)])
