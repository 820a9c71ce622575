"""What plans have decided, where ops and back-ends look it up; :mod:`fusedres.plan` fills the tables.

Nothing here imports upward: without a plan the tables are empty, and the default rules decide.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple


class Choice(NamedTuple):
    """How a block is run: its composition, and the back-ends of its ops; ``"auto"`` leaves it open.

    ``backend`` is one name for all ops, followed by the ops that run elsewhere: ``"cuda,conv_wgrad=triton"``.
    """

    composition: str = "auto"
    backend: str = "auto"


class Convolution(NamedTuple):
    """One convolution for which a back-end has several algorithms, as plain values.

    ``use`` is "infer" (weights packed once), "fprop" or "dgrad" (weights used once; dgrad's shapes are
    those of the forward convolution that computes it), "strided_dgrad" (``x`` is dy, ``w`` the filters with
    their channels in each other's place, the geometry the forward's) or "wgrad" (the forward's shapes).
    ``precision`` is what ``fusedres.precision`` allows.
    """

    backend: str
    use: str
    dtype: str
    x: tuple[int, ...]
    w: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    threads: int
    precision: str = "default"


#: The algorithms that plans chose, by the names the back-end gave its candidates.
CONVOLUTIONS: dict[Convolution, str] = {}

#: The tiles that plans chose for Triton's kernels: a problem as plain values -> the tile's five numbers.
TILES: dict[tuple[object, ...], tuple[int, ...]] = {}

_LEARNING: list[dict[tuple[object, ...], tuple[int, ...]]] = []
_SEEN: list[dict[Convolution, str]] = []


def planned_algorithm(convolution: Convolution, default: str) -> str:
    """The plan's algorithm for a convolution, else ``default``."""
    algorithm = CONVOLUTIONS.get(convolution, default)
    for seen in _SEEN:
        seen[convolution] = algorithm
    return algorithm


@contextmanager
def convolutions_seen() -> Iterator[dict[Convolution, str]]:
    """Every convolution that is asked about inside the context, on any thread, and its algorithm."""
    seen: dict[Convolution, str] = {}
    _SEEN.append(seen)
    try:
        yield seen
    finally:
        _SEEN[:] = [other for other in _SEEN if other is not seen]


def learning_tiles() -> bool:
    """Whether tiles are to be timed now, and :func:`learn_tile` told the best."""
    return bool(_LEARNING)


def learn_tile(problem: tuple[object, ...], tile: tuple[int, ...]) -> None:
    """Keep a tile that was timed, for this process and for the plan that is being made."""
    TILES[problem] = tile
    for learned in _LEARNING:
        learned[problem] = tile


@contextmanager
def tiles_learned() -> Iterator[dict[tuple[object, ...], tuple[int, ...]]]:
    """Have Triton's kernels time their tiles inside the context; gives the problems and their best tiles."""
    learned: dict[tuple[object, ...], tuple[int, ...]] = {}
    _LEARNING.append(learned)
    try:
        yield learned
    finally:
        _LEARNING[:] = [other for other in _LEARNING if other is not learned]
