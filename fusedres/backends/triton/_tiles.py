"""Which tile a GEMM runs with: the list as data, a plan's tile, a heuristic that picks, and autotuning.

``FUSEDRES_AUTOTUNE=0`` leaves it to the heuristic alone, ``1`` times the fitting tiles where they are first
used. Unset, a plan's tile is taken where it has one; ``fusedres.tune`` times them for it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import triton
from torch._library.triton import is_wrap_triton_enabled

from fusedres._settings import autotune
from fusedres.backends.triton._boxes import Box
from fusedres.backends.triton._device import INTERPRETED, DeviceFacts, cdiv, power_of_two
from fusedres.backends.triton._spills import INSTEAD, Configuration
from fusedres.ops._planned import TILES, learn_tile, learning_tiles


class Tile(NamedTuple):
    """A tile of the result, the bytes of the reduction it takes at a time, and how it is run."""

    BM: int
    BN: int
    depth_bytes: int
    num_warps: int
    num_stages: int

    def depth(self, itemsize: int) -> int:
        return self.depth_bytes // itemsize


#: The most a tile takes of the reduction at a time: one line of channels a row.
DEPTH_BYTES = 128

#: Convolutions, largest first: the first that gives every processor a program is taken. All are compiled for
#: 8.0, 9.0, 10.0 and 12.0 in tests/compile.
CONV_TILES = (
    Tile(128, 128, 128, num_warps=8, num_stages=3),
    Tile(128, 64, 128, num_warps=4, num_stages=3),
    Tile(64, 128, 128, num_warps=4, num_stages=3),
    Tile(64, 64, 128, num_warps=4, num_stages=4),
    Tile(128, 32, 128, num_warps=4, num_stages=4),
    Tile(64, 32, 128, num_warps=4, num_stages=4),
    Tile(128, 16, 64, num_warps=4, num_stages=4),
    Tile(32, 64, 128, num_warps=4, num_stages=4),
    Tile(32, 32, 128, num_warps=2, num_stages=4),
    Tile(32, 16, 64, num_warps=2, num_stages=4),
)

#: Weight gradients: rows are filters, columns taps × channels, the depth is pixels (in values, not bytes).
WGRAD_TILES = (
    Tile(128, 128, 128, num_warps=8, num_stages=3),
    Tile(64, 128, 128, num_warps=4, num_stages=3),
    Tile(64, 64, 128, num_warps=4, num_stages=3),
    Tile(32, 64, 128, num_warps=4, num_stages=3),
    Tile(32, 32, 128, num_warps=2, num_stages=3),
    Tile(16, 32, 128, num_warps=2, num_stages=3),
    Tile(16, 16, 128, num_warps=2, num_stages=3),
)

#: Exact fp32 products run on FMA units with both operands in registers: larger accumulators spill.
EXACT_FP32_AREA = 64 * 64

#: Accumulators of this many values leave four warps no registers to form an operand in: they get eight.
#: Exact fp32 products do with half as many, because both operands lie in registers too.
FORMED_AREA, EXACT_FORMED_AREA = 128 * 64, 64 * 64

#: ``tl.dot`` takes no side shorter than this.
LEAST_SIDE = 16


class Problem(NamedTuple):
    """What the choice of a tile depends on. ``loads`` are tensors read a row tile (2 with BN backward);
    ``walk`` is what only timing tells apart: filter, strides, dilation, direction."""

    kernel: str
    rows: int
    columns: int
    depth: int
    batches: int
    dtype: torch.dtype
    precision: str
    loads: tuple[int, int]
    formed: bool
    facts: DeviceFacts
    walk: tuple[int, ...] = ()


def programs(problem: Problem, tile: Tile) -> int:
    """How many tiles cover the result."""
    return cdiv(problem.rows, tile.BM) * cdiv(problem.columns, tile.BN) * problem.batches


def block_depth(problem: Problem, tile: Tile) -> int:
    """BK: the tile's, or less where the reduction is shorter."""
    return min(tile.depth(problem.dtype.itemsize), max(LEAST_SIDE, power_of_two(problem.depth)))


def shared_memory(problem: Problem, tile: Tile) -> int:
    """An upper estimate of a program's shared memory, in bytes: every stage of every load, and one more
    copy of an operand that is formed in registers on its way to the matrix unit."""
    left, right = problem.loads
    stage = left * tile.BM + right * tile.BN
    formed = tile.BM + tile.BN if problem.formed else 0
    return (tile.num_stages * stage + formed) * block_depth(problem, tile) * problem.dtype.itemsize


def without_spills(problem: Problem, tile: Tile) -> Tile | None:
    """The tile with warps and stages that keep nothing in local memory; None where none are known."""
    numerics = "tf32" if problem.precision == "tf32" else str(problem.dtype).removeprefix("torch.")
    sources = problem.loads[0] if problem.formed else 0
    shape = (tile.BM, tile.BN, tile.num_warps, tile.num_stages)
    run = Configuration(problem.kernel, problem.facts.capability, numerics, sources, *shape)
    if run not in INSTEAD:
        return tile
    instead = INSTEAD[run]
    return instead and tile._replace(num_warps=instead[0], num_stages=instead[1])


def fitted(problem: Problem, tiles: Sequence[Tile]) -> list[Tile]:
    """The tiles that suit the problem, largest first, with as many stages as shared memory holds and as do
    not spill."""
    fits = []
    exact = problem.dtype == torch.float32 and problem.precision == "ieee"
    for tile in tiles:
        wasteful = max(LEAST_SIDE, power_of_two(problem.columns)) < tile.BN or (
            max(2 * LEAST_SIDE, power_of_two(problem.rows)) < tile.BM
        )
        area = tile.BM * tile.BN
        if wasteful or (exact and area > EXACT_FP32_AREA):
            continue
        if problem.formed and area >= (EXACT_FORMED_AREA if exact else FORMED_AREA):
            tile = tile._replace(num_warps=8)
        while tile.num_stages > 1 and shared_memory(problem, tile) > problem.facts.shared_memory:
            tile = tile._replace(num_stages=tile.num_stages - 1)
        serves = without_spills(problem, tile)
        if serves and shared_memory(problem, serves) <= problem.facts.shared_memory:
            fits.append(serves)
    return fits or [tiles[-1]]


def choose(problem: Problem, fits: Sequence[Tile]) -> Tile:
    """The largest tile that gives every processor a program; where none does, the one with most programs."""
    for tile in fits:
        if programs(problem, tile) >= problem.facts.processors:
            return tile
    return max(fits, key=lambda tile: programs(problem, tile))


def autotuning() -> bool:
    """Whether tiles are to be timed: ``FUSEDRES_AUTOTUNE`` says so, or a plan is being made."""
    wish = autotune()
    return not INTERPRETED and (learning_tiles() if wish is None else wish)


def plan_key(problem: Problem) -> tuple[object, ...]:
    """A problem as a plan writes it down: plain values alone."""
    dtype = str(problem.dtype).removeprefix("torch.")
    return tuple(problem._replace(dtype=dtype, facts=tuple(problem.facts)))  # type: ignore[arg-type]


def _planned(key: tuple[object, ...], configs: Sequence[tuple[int, ...]]) -> tuple[int, ...] | None:
    """The plan's tile for a problem, if it is still one of those that fit."""
    if autotune() is False or any(isinstance(part, torch.SymInt) for part in key):
        return None  # a symbolic size is none that a plan knows
    tile = TILES.get(key)
    return tile if tile in configs else None


#: What a tile settles, in the order in which plans keep it.
CONSTANTS = ("BM", "BN", "BK", "num_warps", "num_stages")


OPTIONS = ("num_warps", "num_stages")


@functools.lru_cache(maxsize=1024)
def _autotuner(
    kernel: Any,
    candidates: tuple[tuple[tuple[str, int], ...], ...],
    key: tuple[str, ...],
    facts: DeviceFacts,  # what one device finds is not another's
    prepare: Callable[[dict[str, Any]], None] | None,
) -> Any:
    configs = []
    for meta in map(dict, candidates):
        options = {name: meta.pop(name) for name in OPTIONS}
        configs.append(triton.Config(meta, **options, pre_hook=prepare))
    return triton.autotune(configs, key=list(key))(kernel)


class Plan(NamedTuple):
    """A kernel, with what is settled of its tile before it is launched.

    ``meta`` are its constants, none where tiles are being timed; ``candidates`` are the constants of all that
    may run: partials need room for each. ``learns`` is the problem whose best tile is known after the launch,
    where tiles are being timed.
    """

    kernel: Any
    meta: dict[str, int]
    candidates: list[dict[str, int]]
    learns: tuple[object, ...] | None = None

    @property
    def least_rows(self) -> int:
        """The smallest BM that may run."""
        return min(meta["BM"] for meta in self.candidates)


def plan(
    kernel: Any,
    problem: Problem,
    tiles: Sequence[Tile],
    key: tuple[str, ...],
    boxes: Mapping[int, Box] | None = None,
    prepare: Callable[[dict[str, Any]], None] | None = None,
) -> Plan:
    """The kernel with its tile's constants, or under autotuning without.

    Args:
        key: the arguments that an autotuned choice depends on.
        boxes: for a kernel whose tiles may be boxes, those that suit, by BM; where some do, no others run.
        prepare: called with the arguments before a tile is tried.
    """
    fits = fitted(problem, tiles)
    fits = [tile for tile in fits if tile.BM in (boxes or {})] or fits
    configs: tuple[tuple[int, ...], ...] = tuple(
        (t.BM, t.BN, block_depth(problem, t), t.num_warps, t.num_stages) for t in fits
    )
    known = plan_key(problem)
    timed = autotuning()
    if not timed:
        configs = (_planned(known, configs) or configs[fits.index(choose(problem, fits))],)
    candidates = [dict(zip(CONSTANTS, config, strict=True)) for config in configs]
    if boxes is not None:
        for meta in candidates:
            meta.update(boxes.get(meta["BM"], Box())._asdict())
    if not timed:
        return Plan(kernel, candidates[0], candidates)
    frozen = tuple(tuple(meta.items()) for meta in candidates)
    prepare = prepare if boxes else None
    return Plan(_autotuner(kernel, frozen, key, problem.facts, prepare), {}, candidates, known)


def keep_best(chosen: Plan) -> None:
    """After the launch: what was found to be the best tile, if tiles were timed (traced, they were not)."""
    if chosen.learns is not None and not is_wrap_triton_enabled():
        config = chosen.kernel.best_config
        sizes = (config.kwargs[name] for name in CONSTANTS[:3])
        learn_tile(chosen.learns, (*sizes, config.num_warps, config.num_stages))
