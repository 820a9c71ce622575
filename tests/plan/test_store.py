"""Plans on disk: nothing is lost, nothing broken is believed, nothing foreign is used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fusedres import plan
from fusedres.ops._planned import CONVOLUTIONS, TILES, Convolution
from fusedres.plan import _store
from fusedres.plan._lookup import in_force, put_in_force
from fusedres.plan._plan import Algorithm, Entry, Plan, empty, from_json

from .conftest import CPU

ROOT = Path(__file__).parents[2]
WINOGRAD = Convolution("cpu", "infer", "float32", (1, 8, 9, 9), (8, 8, 3, 3), (1, 1), (1, 1), (1, 1), 1, 1)
TILE = ("conv_kernel", 128, 64, "float16", (1, 1), False, (108, 166912), (3, 3, 1, 1))


def entry(composition: str = "stats", measured: str = "2026-01-01T00:00:00+00:00") -> Entry:
    return Entry(composition, "cpu", "because", measured, {"plain": 2.0, f"{composition} on cpu": 1.0})


def example() -> Plan:
    made = empty(CPU)
    made.blocks["a block"] = entry()
    made.convolutions[WINOGRAD] = Algorithm("onednn", "measured", "2026-01-01T00:00:00+00:00")
    made.tiles[TILE] = (64, 64, 32, 4, 3)
    return made


def cached() -> Path:
    path = _store.path_of(empty(CPU))
    assert path is not None
    return path


def test_round_trip_through_json() -> None:
    assert from_json(example().to_json()) == example()


def test_round_trip_through_the_cache(plans: Path) -> None:
    put_in_force(example())
    path = plan.save()
    assert path.parent == plans and json.loads(path.read_text())["format"] == 2
    plan.clear()
    assert not CONVOLUTIONS and not TILES
    assert plan.load() == in_force(CPU) == example()
    assert CONVOLUTIONS[WINOGRAD] == "onednn" and TILES[TILE] == (64, 64, 32, 4, 3)


def test_the_cache_is_read_by_the_first_who_asks() -> None:
    _store.write(cached(), example())
    assert in_force(CPU) == example()


def test_round_trip_through_a_file_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSEDRES_PLANS", "0")
    put_in_force(example())
    own = tmp_path / "deep" / "own.json"
    assert plan.save(own) == own
    plan.clear()
    assert len(in_force(CPU)) == 0
    assert plan.load(own) == example()


@pytest.mark.parametrize("field", ["device", "torch", "fusedres"])
def test_each_origin_has_a_file_of_its_own(field: str) -> None:
    own = empty(CPU)
    assert _store.path_of(replace(own, **{field: "another"})) != _store.path_of(own)
    assert _store.path_of(replace(own, **{field: getattr(own, field)})) == _store.path_of(own)


@pytest.mark.parametrize("field", ["device", "torch", "fusedres"])
def test_a_foreign_plan_is_refused_by_name(field: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(replace(example(), **{field: "another"}).to_json())
    with pytest.raises(ValueError, match=r"plan.load: `path` must hold a plan for .*holds one for .*another"):
        plan.load(path)
    assert len(in_force(CPU)) == 0


@pytest.mark.parametrize("field", ["device", "torch", "fusedres"])
def test_a_foreign_plan_in_the_cache_is_reported_and_ignored(field: str) -> None:
    cached().parent.mkdir()
    cached().write_text(replace(example(), **{field: "another"}).to_json())
    with pytest.warns(UserWarning, match=r"ignores a plan: .*another"):
        assert len(plan.load()) == 0


def _broken() -> dict[str, str]:
    def changed(**fields: object) -> str:
        return json.dumps({**json.loads(example().to_json()), **fields})

    good = json.loads(example().to_json())
    block = good["blocks"]["a block"]
    return {
        "empty": "",
        "half": example().to_json()[:200],
        "binary": "\x00\x01",
        "list": "[]",
        "number": "3",
        "format": changed(format=99),
        "no device": json.dumps({k: v for k, v in good.items() if k != "device"}),
        "device": changed(device=None),
        "blocks": changed(blocks=[1]),
        "entry": changed(blocks={"a": {"composition": "stats"}}),
        "extra": changed(blocks={"a": {**block, "more": 1}}),
        "composition": changed(blocks={"a": {**block, "composition": "fastest"}}),
        "back-end": changed(blocks={"a": {**block, "backend": "abacus"}}),
        "op": changed(blocks={"a": {**block, "backend": "cpu,conv_magic=reference"}}),
        "seconds": changed(blocks={"a": {**block, "seconds": {"plain": "slow"}}}),
        "convolution": changed(convolutions=[[[1, 2], {"algorithm": "a", "why": "", "measured": ""}]]),
        "algorithm": changed(convolutions=[[list(WINOGRAD), {"algorithm": 1, "why": "", "measured": ""}]]),
        "tile": changed(tiles=[[list(TILE), [64, 64]]]),
        "tile of zero": changed(tiles=[[list(TILE), [64, 64, 0, 4, 3]]]),
    }


@pytest.mark.parametrize("how", list(_broken()))
def test_a_broken_file_is_reported_ignored_and_replaced(how: str) -> None:
    cached().parent.mkdir()
    cached().write_text(_broken()[how])
    with pytest.warns(UserWarning, match=r"ignores a plan: .*must be a plan that fusedres wrote"):
        assert len(in_force(CPU)) == 0
    put_in_force(example())
    with pytest.warns(UserWarning, match="ignores a plan"):
        plan.save()
    plan.clear()
    assert in_force(CPU) == example()


@pytest.mark.parametrize("how", ["half", "composition"])
def test_a_broken_file_of_ones_own_is_an_error(how: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(_broken()[how])
    with pytest.raises(ValueError, match=rf"{path}: must be a plan that fusedres wrote"):
        plan.load(path)


@pytest.mark.parametrize("how", ["half", "binary", "a note", "device", "torch", "fusedres"])
def test_saving_leaves_a_file_that_is_no_plan_for_here_as_it_is(how: str, tmp_path: Path) -> None:
    path = tmp_path / "own.json"
    foreign = how in {"device", "torch", "fusedres"}
    texts = {"a note": "remember the milk", **_broken()}
    before = replace(example(), **{how: "another"}).to_json() if foreign else texts[how]
    path.write_text(before)
    put_in_force(example())
    rule = (
        r"plan.save: `path` must hold a plan for .*holds one for .*another"
        if foreign
        else "must be a plan that fusedres wrote"
    )
    with pytest.raises(ValueError, match=rule):
        plan.save(path)
    assert path.read_text() == before


def test_saving_merges_into_a_plan_of_ones_own_and_takes_no_file_beside_it(tmp_path: Path) -> None:
    path, beside = tmp_path / "own.json", tmp_path / "own.lock"
    beside.write_text("not yours")
    put_in_force(example())
    plan.save(path)
    more = empty(CPU)
    more.blocks["b"] = entry()
    put_in_force(more)
    plan.save(path)
    assert plan.load(path).blocks.keys() == {"a block", "b"}
    assert beside.read_text() == "not yours"


def test_a_missing_file_of_ones_own_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        plan.load(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"device": "zzz"}, ValueError, r"`device` must be a torch device; got 'zzz'"),
        ({"device": ""}, ValueError, r"`device` must be a torch device; got ''"),
        ({"device": 3.5}, TypeError, r"`device` must be a torch.device or a string; got 3.5"),
        ({"path": 3.5}, TypeError, r"`path` must be a path; got 3.5"),
    ],
)
@pytest.mark.parametrize("name", ["load", "save"])
def test_arguments_are_refused_by_name(
    name: str, arguments: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"plan.{name}: {message}"):
        getattr(plan, name)(**arguments)


def test_save_without_a_place_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSEDRES_PLANS", "0")
    with pytest.raises(
        ValueError, match=r"plan.save: `path` must be given where FUSEDRES_PLANS is 0; got None"
    ):
        plan.save()


def test_merging_keeps_everything_and_the_later_of_two() -> None:
    older, newer = example(), example()
    older.blocks["b"] = entry("plain", "2026-01-03T00:00:00+00:00")
    newer.blocks["b"] = entry("mainloop", "2026-01-02T00:00:00+00:00")
    newer.blocks["c"] = entry("pointwise")
    both = older.merged(newer)
    assert both == newer.merged(older)
    assert {name: e.composition for name, e in both.blocks.items()} == {
        "a block": "stats", "b": "plain", "c": "pointwise",
    }  # fmt: skip
    with pytest.raises(ValueError, match="must share device and versions"):
        older.merged(replace(newer, torch="0.1"))


@pytest.mark.parametrize(
    ("system", "environment", "expected"),
    [
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/fusedres/plans"),
        ("linux", {}, "/home/me/.cache/fusedres/plans"),
        ("darwin", {}, "/home/me/Library/Caches/fusedres/plans"),
        ("win32", {"LOCALAPPDATA": "/l"}, "/l/fusedres/plans"),
        ("win32", {}, "/home/me/AppData/Local/fusedres/plans"),
        ("linux", {"FUSEDRES_PLANS": "/mine", "XDG_CACHE_HOME": "/x"}, "/mine"),
        ("linux", {"FUSEDRES_PLANS": "0"}, None),
    ],
)
def test_where_plans_are_kept(
    system: str, environment: dict[str, str], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(Path, "home", lambda: Path("/home/me"))
    for name in ("FUSEDRES_PLANS", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert _store.folder() == (None if expected is None else Path(expected))


def test_readers_see_a_whole_plan_whenever_they_look() -> None:
    path, stop, failures = cached(), threading.Event(), []
    _store.write(path, example())

    def look() -> None:
        while not stop.is_set():
            try:
                assert "a block" in _store.read(path).blocks
            except Exception as error:
                failures.append(error)

    reader = threading.Thread(target=look)
    reader.start()
    for number in range(100):
        more = empty(CPU)
        more.blocks[f"block {number}"] = entry()
        _store.write(path, more)
    stop.set()
    reader.join()
    assert not failures
    assert len(_store.read(path).blocks) == 101
    assert [p.name for p in path.parent.iterdir() if p.name.startswith(".")] == [], "a temporary file is left"


WRITER = """
import sys, torch
from fusedres.plan import _store
from fusedres.plan._plan import Entry, empty
me = sys.argv[1]
mine = empty(torch.device("cpu"))
path = _store.path_of(mine)
print("ready", flush=True)
sys.stdin.readline()
for number in range(40):
    more = empty(torch.device("cpu"))
    more.blocks[f"{me} {number}"] = Entry("stats", "cpu", "", "2026-01-01", {})
    _store.write(path, more)
"""


def test_two_processes_at_once_lose_nothing(plans: Path) -> None:
    environment = {**os.environ, "FUSEDRES_PLANS": str(plans), "PYTHONPATH": str(ROOT)}
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=environment, cwd=ROOT,
        )
        for name in ("one", "other")
    ]  # fmt: skip
    for writer in writers:
        assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=300)
        assert writer.returncode == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        names = set(plan.load().blocks)
    assert names == {f"{name} {number}" for name in ("one", "other") for number in range(40)}


def test_a_device_is_named_as_torch_names_it() -> None:
    assert plan.load(device="cpu") == plan.load(device=torch.device("cpu"))
    with pytest.raises(
        ValueError, match=r"`device` must be a torch device; got 'abacus' \(Expected one of cpu"
    ):
        plan.load(device="abacus")
