"""Autotuning and plans on the stand-in `cuda` device, through Triton's own driver, launcher and autotuner.

Run by test_standin.py; prints one line a check and fails by its exit status.
"""

from __future__ import annotations

import os
from pathlib import Path

import ptxemu.torch_mock
import torch

import fusedres
from fusedres import FusedBasicBlock, ops
from fusedres.backends.triton import _conv, _tiles
from fusedres.ops._dispatch import serving_backends
from fusedres.ops._planned import TILES, Choice
from fusedres.plan import clear
from fusedres.plan._lookup import in_force, put_in_force, recall
from fusedres.plan._plan import Entry
from tests._fused import fused_calls
from tests._parity import assert_same_bits, assert_within_two_x

#: Two tiles of different heights: what one leaves of its partials must not reach the other's.
FEW_TILES = (_tiles.Tile(64, 16, 64, 4, 2), _tiles.Tile(32, 16, 64, 2, 2))


def check_autotuned() -> None:
    """Both tiles are timed, results are those of the rule's tile, and no partial is left of the other."""
    x = torch.randn(2, 16, 7, 7).bfloat16().contiguous(memory_format=torch.channels_last)
    w = torch.randn(16, 16, 3, 3).bfloat16().contiguous(memory_format=torch.channels_last) / 12
    given = x.cuda(), w.cuda()
    found = {}
    for wish in ("0", "1"):
        os.environ["FUSEDRES_AUTOTUNE"] = wish
        y, *tiles = (t.cpu() for t in ops.conv_stats(*given, padding=1, backend="triton"))
        assert y.shape == (2, 16, 7, 7) and int(tiles[0].sum()) == 98, "each pixel counts once"
        found[wish] = y, *ops.bn_finalize(*tiles, backend="reference")[:2]
        assert bool(TILES) == (wish == "1"), "the rule alone learns nothing"
    assert_same_bits(found["1"][0], found["0"][0], "the result")
    # Two tilings merge the same 98 values in another order: at most 7 merges, a rounding of 2⁻²³ each.
    for one, other in zip(found["1"][1:], found["0"][1:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
    del os.environ["FUSEDRES_AUTOTUNE"]
    (tile,) = TILES.values()
    assert tile[:2] in {(64, 16), (32, 16)}
    print("autotuned: fine")


def check_tuned() -> None:
    """Plain, CUDA and Triton compete for a block; what won is stored, and runs."""
    block = FusedBasicBlock(16, 16).eval().bfloat16()
    x = torch.randn(1, 16, 4, 4).bfloat16().contiguous(memory_format=torch.channels_last)
    with torch.no_grad(), fusedres.composition("plain"):
        plain = block(x)
        exact = block.double()(x.double())
    block, x = block.bfloat16().cuda(), x.cuda()
    report = fusedres.tune(block, x, progress=False, table=False)
    print(report)
    (outcome,) = report.outcomes
    expected = {"plain", "fused on triton"}
    if "cuda" in serving_backends(x.device, x.dtype):
        expected.add("fused on cuda")
    assert set(outcome.seconds) == expected, outcome
    assert report.stored is not None and Path(report.stored).is_file()
    plan = in_force(x.device)
    assert {entry.choice for entry in plan.blocks.values()} == {outcome.choice}
    assert plan.tiles, "Triton's tiles were timed for the plan"
    clear()  # as the next process begins
    assert in_force(x.device) == plan, "what was stored is what was measured"
    for choice in (outcome.choice, Choice("auto", "triton"), Choice("plain", "auto")):
        plan.blocks.update({name: Entry(*choice, "by the test", "2026-01-01") for name in plan.blocks})
        put_in_force(plan)
        with torch.no_grad(), fused_calls() as calls:
            out = block(x)
            assert recall(block, x, None) == choice
        assert bool(calls) == (choice.composition != "plain")
        assert_within_two_x(out.cpu(), exact, plain, f"tuned: {choice}")
    print("tuned: fine")


def main() -> None:
    ptxemu.torch_mock.install()
    torch.manual_seed(0)
    _conv.CONV_TILES = FEW_TILES
    check_autotuned()
    check_tuned()


if __name__ == "__main__":
    main()
