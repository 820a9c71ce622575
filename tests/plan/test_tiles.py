"""Triton's tiles in plans: looked up by problem, timed for the plan, left alone by FUSEDRES_AUTOTUNE=0."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fusedres import plan
from fusedres.ops._planned import TILES, tiles_learned
from fusedres.plan._lookup import in_force, put_in_force
from fusedres.plan._plan import empty, from_json

from .conftest import CPU

ROOT = Path(__file__).parents[2]

pytest.importorskip("triton")

from fusedres.backends.triton import _tiles  # noqa: E402
from fusedres.backends.triton._device import DEFAULT_FACTS  # noqa: E402
from fusedres.backends.triton._runs import Run, run_of  # noqa: E402
from fusedres.backends.triton._spills import INSTEAD, Configuration  # noqa: E402
from fusedres.backends.triton._tiles import (  # noqa: E402
    CONV_TILES,
    WGRAD_TILES,
    Problem,
    keep_best,
    plan_key,
)
from fusedres.ops._shapes import Geometry  # noqa: E402

PROBLEM = Problem(
    "conv_kernel", 4096, 128, 64, 1, torch.float16, "ieee", (1, 1), False, DEFAULT_FACTS,
    (3, 3, 1, 1, 1, 1, 0, 0),
)  # fmt: skip
KERNEL = SimpleNamespace()
HOPPER = DEFAULT_FACTS._replace(capability=9)
#: Fits the problem, and is not what the rule picks.
OTHER = (32, 32, 64, 2, 4)


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FUSEDRES_AUTOTUNE", raising=False)


def tile(problem: Problem = PROBLEM) -> tuple[int, ...]:
    chosen = _tiles.plan(KERNEL, problem, CONV_TILES, ())
    assert chosen.learns is None and chosen.least_rows == chosen.meta["BM"]
    return tuple(chosen.meta[name] for name in _tiles.CONSTANTS)


def hold(key: tuple[object, ...], config: tuple[int, ...]) -> None:
    made = empty(CPU)
    made.tiles[key] = config
    put_in_force(from_json(made.to_json()))  # as it comes back from disk


def test_a_plans_tile_is_taken() -> None:
    by_rule = tile()
    assert by_rule != OTHER
    hold(plan_key(PROBLEM), OTHER)
    assert tile() == OTHER
    plan.clear()
    assert tile() == by_rule


@pytest.mark.parametrize(
    "change",
    [
        {"rows": 8192},
        {"dtype": torch.bfloat16},
        {"walk": (1, 1, 1, 1, 1, 1, 0, 0)},
        {"facts": DEFAULT_FACTS._replace(processors=132)},
        {"formed": True},
    ],
    ids=str,
)
def test_another_problem_does_not_take_it(change: dict[str, object]) -> None:
    other = PROBLEM._replace(**change)
    by_rule = tile(other)
    hold(plan_key(PROBLEM), OTHER)
    assert tile(other) == by_rule
    assert plan_key(PROBLEM._replace(kernel="wgrad_kernel")) not in TILES


def test_a_tile_that_no_longer_fits_is_not_taken() -> None:
    by_rule = tile()
    hold(plan_key(PROBLEM), (256, 256, 64, 8, 3))
    assert tile() == by_rule


def test_a_configuration_that_spills_runs_with_fewer_stages() -> None:
    """Forming its operand on load, this tile is known to spill on 8.0 with 3 stages; on 9.0 it does not."""
    here = PROBLEM._replace(columns=64, depth=256, formed=True, dtype=torch.bfloat16)
    (other,) = (t for t in _tiles.fitted(here._replace(facts=HOPPER), CONV_TILES) if t[:2] == (128, 64))
    (same,) = (t for t in _tiles.fitted(here, CONV_TILES) if t[:2] == (128, 64))
    assert (other.num_warps, other.num_stages) == (8, 3) and (same.num_warps, same.num_stages) == (8, 2)


def test_a_configuration_that_spills_at_any_depth_of_pipeline_runs_with_fewer_warps() -> None:
    """In fp16 the largest tile that forms its operand spills on 10.0; in bf16 it does not."""
    facts = DEFAULT_FACTS._replace(capability=10, shared_memory=227 * 1024)
    here = PROBLEM._replace(depth=256, formed=True, facts=facts)
    half, brain = (
        _tiles.fitted(here._replace(dtype=dtype), CONV_TILES)[0] for dtype in (torch.float16, torch.bfloat16)
    )
    assert half[:2] == brain[:2] == (128, 128)
    assert (half.num_warps, half.num_stages) == (4, 3) and (brain.num_warps, brain.num_stages) == (8, 3)


def test_few_channels_reduced_with_their_taps_are_a_kernel_of_their_own() -> None:
    """In fp16 on 10.0 this tile spills with eight warps over channels, with four over taps × channels."""
    facts = DEFAULT_FACTS._replace(capability=10, shared_memory=227 * 1024)
    here = PROBLEM._replace(columns=64, depth=256, formed=True, facts=facts)
    channels, flat = (
        next(t for t in _tiles.fitted(here._replace(kernel=name), CONV_TILES) if t[:2] == (128, 64))
        for name in ("conv_kernel", "conv_kernel, flat")
    )
    assert (channels.num_warps, channels.num_stages) == (4, 3) and (flat.num_warps, flat.num_stages) == (8, 3)


@pytest.mark.parametrize("run", INSTEAD, ids=str)
def test_what_is_known_to_spill_is_what_the_list_would_run(run: Configuration) -> None:
    tiles = WGRAD_TILES if run.kernel == "wgrad_kernel" else CONV_TILES
    (tile,) = (t for t in tiles if t[:2] == (run.BM, run.BN))
    wide = run.sources > 0 and run.BM * run.BN >= _tiles.EXACT_FORMED_AREA
    assert run.num_warps in {tile.num_warps, 8 if wide else tile.num_warps}
    assert 1 <= run.num_stages <= tile.num_stages
    assert INSTEAD[run] != (run.num_warps, run.num_stages)


def test_a_tile_that_nothing_keeps_from_spilling_is_left_out() -> None:
    here = PROBLEM._replace(dtype=torch.float32, precision="tf32", columns=64, loads=(2, 1), formed=True)
    assert (128, 64) not in [t[:2] for t in _tiles.fitted(here, CONV_TILES)]
    assert (128, 64) in [t[:2] for t in _tiles.fitted(here._replace(facts=HOPPER), CONV_TILES)]


@pytest.mark.parametrize(
    ("shape", "taps", "geometry", "run"),
    [
        ((2, 3, 224, 224), 7, Geometry((2, 2), (3, 3)), Run(word=2, lead=1, size=22)),  # ResNet's stem
        ((2, 3, 224, 223), 7, Geometry((2, 2), (3, 3)), Run(word=1, lead=0, size=21)),  # rows of odd length
        ((2, 4, 224, 224), 7, Geometry((2, 2), (3, 3)), Run(word=8, lead=4, size=32)),
        ((2, 3, 32, 32), 3, Geometry((1, 1), (1, 1)), Run(word=1, lead=0, size=9)),
        ((2, 16, 32, 32), 3, Geometry((1, 1), (1, 1)), None),  # channels enough
        ((2, 3, 32, 32), 3, Geometry((1, 1), (1, 1), (1, 2)), None),  # pixels between the taps
        ((2, 8, 32, 32), 3, Geometry((1, 1), (1, 1), (1, 1), 2), None),  # channels between them
        ((2, 3, 32, 32), 1, Geometry(), None),
        ((2, 3, 32, 1), 3, Geometry((1, 1), (1, 1)), None),  # Triton makes a width of 1 a constant of its own
    ],
)
def test_runs_of_taps(shape: tuple[int, ...], taps: int, geometry: Geometry, run: Run | None) -> None:
    assert run_of(torch.empty(shape, dtype=torch.bfloat16, device="meta"), taps, geometry) == run


def test_autotune_0_is_the_rule_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    by_rule = tile()
    hold(plan_key(PROBLEM), OTHER)
    monkeypatch.setenv("FUSEDRES_AUTOTUNE", "0")
    assert tile() == by_rule
    with tiles_learned():
        assert not _tiles.autotuning()


def test_autotune_takes_0_and_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tiles, "INTERPRETED", False)
    for wish, timed in (("", False), ("0", False), ("1", True)):
        monkeypatch.setenv("FUSEDRES_AUTOTUNE", wish)
        assert _tiles.autotuning() is timed
    monkeypatch.setenv("FUSEDRES_AUTOTUNE", "false")
    with pytest.raises(ValueError, match=r"FUSEDRES_AUTOTUNE: must be 0 or 1; got 'false'"):
        _tiles.autotuning()


def test_tiles_are_timed_where_a_plan_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tiles, "INTERPRETED", False)
    best = SimpleNamespace(
        kwargs=dict(zip(("BM", "BN", "BK"), OTHER, strict=False)), num_warps=2, num_stages=4
    )
    monkeypatch.setattr(_tiles, "_autotuner", lambda *args: SimpleNamespace(best_config=best))
    monkeypatch.setattr(_tiles, "is_wrap_triton_enabled", lambda: False)
    assert not _tiles.autotuning()
    with tiles_learned() as learned:
        assert _tiles.autotuning()
        chosen = _tiles.plan(KERNEL, PROBLEM, CONV_TILES, ())
        assert chosen.meta == {} and chosen.least_rows == 32, "partials for the smallest tile that may run"
        keep_best(chosen)
    assert learned == {plan_key(PROBLEM): OTHER}
    assert tile() == OTHER, "and used from then on"
    assert len(in_force(CPU)) == 0, "the plan is tune's to make"


PROGRAM = """
import torch
from fusedres.backends.triton import _tiles
from fusedres.ops._planned import TILES

asked = []
run = _tiles.plan_key
_tiles.plan_key = lambda *args: asked.append(run(*args)) or asked[-1]
torch.backends.cudnn.allow_tf32 = False
x = torch.randn(1, 16, 5, 5).contiguous(memory_format=torch.channels_last)
w = torch.randn(16, 16, 3, 3)
args = (x, w, None, None, None, False, (1, 1), (1, 1), (1, 1), 1)
first = torch.ops.fusedres_triton.conv_affine_act(*args)
TILES[asked[0]] = (32, 16, 16, 2, 4)
second = torch.ops.fusedres_triton.conv_affine_act(*args)
torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-5)
torch.testing.assert_close(second, torch.nn.functional.conv2d(x, w, padding=1), rtol=1e-4, atol=1e-4)
assert len(asked) == 2 and asked[0] == asked[1]
print("fine")
"""


def test_a_kernel_runs_with_a_plans_tile() -> None:
    """In Triton's interpreter, in a process of its own, because Triton decides at import."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "fine\n"
