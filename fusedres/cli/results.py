"""What a comparison found, and the verdict."""

from __future__ import annotations

from dataclasses import dataclass

from fusedres.cli.measure import Ratio, Timing, speed_ratio
from fusedres.cli.networks import OURS
from fusedres.cli.parity import Agreement, Parity


@dataclass(frozen=True)
class Seen:
    """What both sides take one photograph for: class index and probability, torchvision's first."""

    photo: str
    torchvision: tuple[int, float]
    fusedres: tuple[int, float]


@dataclass(frozen=True)
class Section:
    """One mode, ``"inference"`` or ``"training"``: numbers first, then speed."""

    mode: str
    parity: tuple[Parity, ...]
    agreement: Agreement | None
    seen: tuple[Seen, ...]
    timings: tuple[Timing, ...]
    calls: int
    kernels: dict[str, int]
    saved: dict[str, int]
    #: How many of the distinct blocks that ours ran a plan decided, and how many there were.
    planned: tuple[int, int] = (0, 0)

    @property
    def passed(self) -> bool:
        return all(p.passed for p in self.parity) and (self.agreement is None or self.agreement.passed)

    @property
    def ours(self) -> Timing:
        return next(t for t in self.timings if t.name == OURS)

    @property
    def fastest_peer(self) -> Timing:
        """The faster of torchvision's two memory formats: what a speed-up has to be measured against."""
        return min((t for t in self.timings if t.name != OURS), key=lambda t: t.median)

    @property
    def speedup(self) -> Ratio:
        return speed_ratio(self.ours, self.fastest_peer)


@dataclass(frozen=True)
class Comparison:
    """A whole run of ``fusedres compare``: its settings, and a section a mode."""

    model: str
    batch: int
    size: int
    dtype: str
    device: str
    threads: int
    rounds: int
    seed: int
    weights_kind: str
    weights: str
    photos: tuple[str, ...]
    unreadable: tuple[str, ...]
    sections: tuple[Section, ...]
    versions: dict[str, str]
    plan: str = "the default rules, not tuned"
    precision: str = "default"

    @property
    def passed(self) -> bool:
        return all(section.passed for section in self.sections)

    @property
    def arithmetic(self) -> str:
        """The dtype, and the precision where that is not the default."""
        return self.dtype if self.precision == "default" else f"{self.dtype} {self.precision}"

    @property
    def caveat(self) -> str | None:
        """What a reader must know before believing class names; ``None`` where they mean something."""
        if self.weights_kind != "seeded":
            return None
        return (
            "These weights were never trained: what the network takes a photograph for means nothing, "
            "only that both sides agree on it does."
        )
