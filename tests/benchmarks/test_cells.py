"""Names of cells and peers, as the command line takes them."""

from __future__ import annotations

import pytest

from benchmarks.models import cells, peers
from benchmarks.models.cells import Cell


def test_a_name_is_its_cell() -> None:
    cell = Cell("infer", "wide_resnet50_2", "bf16", 16, 2)
    assert Cell.parse(str(cell)) == cell


@pytest.mark.parametrize(
    "name",
    ["infer-resnet50-fp32-b1", "guess-resnet50-fp32-b1-t1", "infer-resnet50-int8-b1-t1", "infer-r-fp32-1-t1"],
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="must read like infer-resnet50-bf16-b16-t2; got"):
        Cell.parse(name)


def test_globs_choose_from_a_full_run_and_exact_names_from_everything() -> None:
    assert {str(c) for c in cells.choose(["train-*"], [2])} == {
        "train-resnet50-fp32-b16-t2",
        "train-resnet50-bf16-b16-t2",
    }
    assert [str(c) for c in cells.choose(["infer-resnet50-fp32-b1"], [1, 2])] == [
        "infer-resnet50-fp32-b1-t1",
        "infer-resnet50-fp32-b1-t2",
    ]
    assert cells.choose(["infer-resnet18-fp32-b3-t1"], [2]) == [Cell("infer", "resnet18", "fp32", 3, 1)]
    with pytest.raises(ValueError, match="--cells: 'nothing' matches none of"):
        cells.choose(["nothing"], [2])


def test_ours_and_eager_always_run() -> None:
    assert [peer.name for peer in peers.choose(["openvino"])] == ["fusedres", "eager", "openvino"]
    assert len(peers.choose([])) == len(peers.PEERS)
    with pytest.raises(ValueError, match=r"--peers: must be among .*; got 'tvm'"):
        peers.choose(["tvm"])


def test_a_package_that_is_not_installed_is_named() -> None:
    peer = peers.Peer("x", "X", "x:y", ("infer",), ("torch", "no-such-distribution"))
    assert peer.missing() == "no-such-distribution not installed"
    assert peers.PEERS["eager"].missing() is None


@pytest.mark.parametrize("peer", peers.PEERS.values(), ids=lambda peer: peer.name)
def test_every_entry_exists(peer: peers.Peer) -> None:
    assert callable(peer.prepare())
