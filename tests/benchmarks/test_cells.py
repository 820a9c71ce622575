"""Names of cells and peers, as the command line takes them."""

from __future__ import annotations

import pytest

from benchmarks.models import peers, suites
from benchmarks.models.cells import Cell


@pytest.mark.parametrize(
    ("cell", "name"),
    [
        (Cell("infer", "wide_resnet50_2", "bf16", 16, 2), "infer-wide_resnet50_2-bf16-b16-t2"),
        (Cell("infer", "resnet50", "fp32", 1, 2, "fast"), "infer-resnet50-fp32-b1-t2-fast"),
        (Cell("infer", "r", "fp32", 1, 1, "fast", "pinned"), "infer-r-fp32-b1-t1-fast-pinned"),
        (Cell("infer", "r", "fp32", 1, 1, neighbour="busy"), "infer-r-fp32-b1-t1-busy"),
    ],
)
def test_a_name_is_its_cell(cell: Cell, name: str) -> None:
    assert str(cell) == name
    assert Cell.parse(name) == cell


@pytest.mark.parametrize(
    "name",
    [
        "infer-resnet50-fp32-b1",
        "guess-resnet50-fp32-b1-t1",
        "infer-resnet50-int8-b1-t1",
        "infer-r-fp32-1-t1",
        "infer-r-fp32-b1-t1-slow",
    ],
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="must read like infer-resnet50-bf16-b16-t2; got"):
        Cell.parse(name)


def test_two_spellings_of_one_cell_are_refused() -> None:
    with pytest.raises(ValueError, match="must be spelled 'infer-r-fp32-b1-t1-pinned'"):
        Cell.parse("infer-r-fp32-b1-t1-busy-pinned")


def chosen(*patterns: str, threads: tuple[int, ...] = (2,)) -> list[str]:
    return [str(entry.cell) for entry in suites.choose(list(patterns), list(threads))]


def test_suites_globs_and_exact_names_choose_cells() -> None:
    assert set(chosen("train-*")) == {
        "train-resnet50-fp32-b16-t2",
        "train-resnet50-bf16-b16-t2",
    }
    assert chosen("infer-resnet50-fp32-b1", threads=(1, 2)) == [
        "infer-resnet50-fp32-b1-t1",
        "infer-resnet50-fp32-b1-t2",
    ]
    assert chosen("infer-resnet18-fp32-b3-t1") == ["infer-resnet18-fp32-b3-t1"]
    assert chosen() == chosen("main"), "a bare run measures the README's table"
    assert "infer-resnext50_32x4d-bf16-b16-t2" in chosen("models")
    assert len(chosen("neighbours")) == 4
    with pytest.raises(ValueError, match="--cells: 'nothing' matches none of"):
        chosen("nothing")


def test_every_thread_count_of_a_cell_is_measured_once() -> None:
    names = chosen(*suites.SUITES, threads=(1, 2))
    assert len(names) == len(set(names))
    batches = suites.SWEEP_BATCHES
    assert {f"infer-resnet50-bf16-b{batch}-t{threads}" for batch in batches for threads in (1, 2)} <= set(
        names
    )


def test_a_cell_stands_in_one_suite() -> None:
    cells = [entry.cell for entries in suites.SUITES.values() for entry in entries]
    assert len(cells) == len(set(cells))


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
