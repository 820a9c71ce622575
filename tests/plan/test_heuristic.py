"""The default rules: data that can be read, checked and changed without touching code."""

from __future__ import annotations

import json

import pytest
import torch

import fusedres._heuristic as heuristic
from fusedres._heuristic import parse_rules, rule_for, rules
from fusedres._settings import COMPOSITION
from fusedres.backends.cpu import engine
from fusedres.ops._dispatch import BACKENDS, COMPOSITIONS
from fusedres.ops._planned import Convolution

needs_avx512 = pytest.mark.skipif(engine.tile_isa(torch.float32) != "avx512", reason="the rules of AVX-512")
LAST = {"when": {}, "then": ["b"], "why": "else"}


def convolution(
    use: str = "infer",
    dtype: str = "float32",
    *,
    n: int = 1,
    hw: int = 56,
    c: int = 64,
    k: int = 64,
    r: int = 3,
    stride: int = 1,
) -> Convolution:
    pad = (r // 2, r // 2)
    return Convolution("cpu", use, dtype, (n, c, hw, hw), (k, c, r, r), (stride, stride), pad, (1, 1), 1, 1)


def test_the_first_rule_that_holds_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    table = [
        {"when": {"size": {"min": 3, "max": 5}}, "then": ["range"], "why": ""},
        {"when": {"kind": ["a", "b"]}, "then": ["list"], "why": ""},
        {"when": {"kind": "c", "size": {"min": 9}}, "then": ["both"], "why": ""},
        LAST,
    ]
    monkeypatch.setattr(heuristic, "rules", lambda: parse_rules(json.dumps({"t": table})))
    expected = [
        ({"size": 3}, "range"), ({"size": 5, "kind": "a"}, "range"), ({"size": 6, "kind": "a"}, "list"),
        ({"kind": "b"}, "list"), ({"kind": "c", "size": 9}, "both"), ({"kind": "c", "size": 8}, "b"),
        ({}, "b"),
    ]  # fmt: skip
    assert [rule_for("t", facts).then[0] for facts, _ in expected] == [name for _, name in expected]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([{"when": {}, "then": ["a"]}], "each must have `when`, `then` and `why`"),
        ([{"when": {}, "then": [], "why": ""}], "each must have"),
        ([{"when": {"n": {"least": 1}}, "then": ["a"], "why": ""}, LAST], "bounds must be `min` and `max`"),
        ([{"when": {"n": 1}, "then": ["a"], "why": ""}], "the last must hold for everything"),
        ([], "the last must hold for everything"),
    ],
)
def test_a_broken_table_is_named(table: list[object], message: str) -> None:
    with pytest.raises(ValueError, match=f"rules of 't': {message}"):
        parse_rules(json.dumps({"t": table}))


def test_the_packages_rules_name_what_exists() -> None:
    tables = rules()
    assert set(tables) == {"composition", "cpu convolution"}
    for rule in tables["composition"]:
        assert set(rule.then) <= set(COMPOSITION.choices[2:]) and rule.why
    algorithms = {*(a.name.lower() for a in engine.Algorithm), engine.ONEDNN}
    facts = {"use", "dtype", "precision", "taps", "stride", "dilation", "groups", "isa", "onednn"}
    facts |= {"matrix_unit", "channels", "weights", "map_pixels", "batch_pixels", "patches", "thread_patches"}
    for rule in tables["cpu convolution"]:
        assert set(rule.then) <= algorithms and rule.why
        assert rule.then[-1] == engine.ONEDNN, "the one that always runs comes last"
        assert set(rule.when) <= facts


def test_every_back_end_has_its_default_composition() -> None:
    assert set(COMPOSITIONS) >= set(BACKENDS)
    assert COMPOSITIONS["cpu"] == "stats"
    assert COMPOSITIONS["triton"] == COMPOSITIONS["reference"] == "pointwise"


@needs_avx512
@pytest.mark.parametrize(
    ("what", "expected"),
    [
        (convolution(), "winograd_f32"),
        (convolution(r=1), "direct_f32"),
        (convolution(stride=2), "direct_f32"),
        (convolution(n=2, hw=7, c=512, k=512), "winograd_f32"),
        (convolution("fprop", n=1, hw=28), "onednn"),
        (convolution("fprop", n=16, hw=28), "winograd_f32"),
        (convolution("fprop", n=16, hw=28, r=1), "direct_f32"),
        (convolution("dgrad", n=16, hw=14, r=1), "onednn"),
        (convolution("fprop", n=16, hw=56, stride=2), "onednn"),
        (convolution("strided_dgrad", n=16, hw=28, r=1, stride=2), "direct_f32"),
        (convolution("strided_dgrad", n=16, hw=28, stride=2), "onednn"),
        (convolution("fprop", n=16, hw=224, c=3, r=7, stride=2), "direct_f32"),
        (convolution("fprop", "bfloat16", n=16), "onednn"),
    ],
)
def test_the_engines_thresholds(what: Convolution, expected: str) -> None:
    chosen, why = engine.by_rule(what)
    assert chosen == expected and why


FEW_PATCHES = convolution(hw=7, c=512, k=512)
HALF_AN_IMAGE = convolution(hw=28, c=128, k=128)._replace(precision="fast", threads=2)


@needs_avx512
@pytest.mark.parametrize(
    ("what", "with_amx", "by_fmas"),
    [(FEW_PATCHES, "direct_f32", "winograd_f32"), (HALF_AN_IMAGE, "winograd2_f32_amx", "winograd4_f32")],
)
def test_winograd_on_few_patches_is_for_fmas(
    what: Convolution, with_amx: str, by_fmas: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AMX leaves larger weights less to gain."""
    for amx, expected in ((True, with_amx), (False, by_fmas)):
        monkeypatch.setattr(engine, "runs", lambda algorithm, amx=amx: amx or "AMX" not in algorithm.name)
        assert engine.by_rule.__wrapped__(what)[0] == expected


@pytest.mark.parametrize(
    ("isa", "dtype", "served", "expected"),
    [
        ("portable", "float32", True, "onednn"),
        ("portable", "bfloat16", True, "onednn"),
        ("portable", "bfloat16", False, "direct_bf16_dot"),
        ("avx2", "float32", True, "winograd_f32"),
        ("avx2", "bfloat16", True, "onednn"),
        ("avx2", "bfloat16", False, "winograd_f32"),
    ],
)
def test_below_avx512(
    isa: str, dtype: str, served: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine's lesser tiles serve fp32 with AVX2, and bf16 where oneDNN does not: with AVX2 as fp32."""
    monkeypatch.setattr(engine, "tile_isa", lambda dtype: isa)
    monkeypatch.setattr(engine, "onednn_serves", lambda dtype: served or dtype == torch.float32)
    assert engine.by_rule.__wrapped__(convolution(dtype=dtype))[0] == expected


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        (convolution(r=1), "direct_f32"),
        (convolution(stride=2), "direct_f32"),
        (convolution(c=3, hw=224, r=7, stride=2), "direct_f32"),
        (convolution(hw=7, c=512, k=512), "winograd_f32"),
        (convolution()._replace(precision="fast"), "winograd4_f32"),
        (convolution(hw=7, c=512, k=512)._replace(precision="fast"), "winograd_f32"),
        (convolution("fprop", n=4, hw=14), "winograd_f32"),
        (convolution("fprop", n=16, hw=28, stride=2), "direct_f32"),
        (convolution("fprop", n=1, hw=14, r=1), "onednn"),
        (convolution("dgrad", n=16, hw=7), "winograd_f32"),
        (convolution("dgrad", n=16, hw=14, r=1), "direct_f32"),
        (convolution("dgrad", n=1, hw=14, r=1), "onednn"),
        (convolution("strided_dgrad", n=16, hw=28, stride=2), "direct_f32"),
        (convolution("strided_dgrad", n=1, hw=14, stride=2), "onednn"),
        (convolution("strided_dgrad", n=16, hw=28, r=5, stride=2), "onednn"),
        (convolution("fprop", "bfloat16", n=16), "winograd_f32"),
        (convolution("wgrad", "bfloat16", n=16, r=1), "direct_f32"),
    ],
)
def test_thresholds_of_avx2(what: Convolution, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "tile_isa", lambda dtype: "avx2")
    monkeypatch.setattr(engine, "onednn_serves", lambda dtype: dtype == torch.float32)
    assert engine.by_rule.__wrapped__(what)[0] == expected


@pytest.mark.skipif(engine.tile_isa(torch.float32) == "portable", reason="the rules leave all to oneDNN")
def test_groups_and_dilation_are_direct() -> None:
    plain = convolution()
    grouped = plain._replace(w=(64, 4, 3, 3), groups=16)
    dilated = plain._replace(dilation=(2, 2), padding=(2, 2))
    assert [engine.by_rule(c)[0] for c in (plain, grouped, dilated)] == [
        "winograd_f32", "direct_f32", "direct_f32",
    ]  # fmt: skip


def test_an_edited_rule_changes_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """No threshold is left in code."""
    serves = engine.tile_isa(torch.float32) != "portable"
    assert (engine.by_rule.__wrapped__(convolution())[0] != "onednn") == serves
    table = [{"when": {}, "then": ["onednn"], "why": "by the test"}]
    monkeypatch.setattr(heuristic, "rules", lambda: parse_rules(json.dumps({"cpu convolution": table})))
    assert engine.by_rule.__wrapped__(convolution()) == ("onednn", "by the test")
