"""What a model runs and why, in words that come from the plan or from the rules."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import fusedres
from fusedres import FusedResNet, plan
from fusedres._heuristic import rules
from fusedres.backends.cpu import engine
from fusedres.ops._planned import convolutions_seen
from fusedres.plan._lookup import put_in_force
from fusedres.plan._plan import Algorithm

from .conftest import decide_all


def test_by_rule_in_training(model: FusedResNet, x: Tensor) -> None:
    rows = plan.explain(model, x, train=True).rows
    assert [row.block.kind for row in rows] == ["stem", *["basic_block"] * 4]
    why = next(rule.why for rule in rules()["composition"] if rule.when == {"backend": "cpu"})
    assert {(row.runs, row.why) for row in rows} == {("stats on cpu", f"by rule: {why}")}
    assert not model.training


def test_by_plan(model: FusedResNet, x: Tensor) -> None:
    with torch.no_grad():
        decide_all(model, x, "plain")
    rows = plan.explain(model, x).rows
    assert {(row.runs, row.why) for row in rows} == {("torchvision's own forward", "by the test")}
    assert "by the test" in str(plan.explain(model, x))


@pytest.mark.skipif(engine.tile_isa(torch.float32) == "portable", reason="the rules leave all to oneDNN")
def test_every_convolution_says_its_algorithm(model: FusedResNet, x: Tensor) -> None:
    with torch.no_grad():
        model(x)  # and what is kept from this run is not what is told
        row = plan.explain(model, x).rows[2]
        whats = [what for what, _, _ in row.convolutions]
        assert whats == [
            "3x3 64 → 128 stride 2 on 8x8",
            "3x3 128 → 128 on 4x4",
            "1x1 64 → 128 stride 2 on 8x8",
        ]
        assert [algorithm for _, algorithm, _ in row.convolutions] == [
            "direct_f32",
            "winograd_f32",
            "direct_f32",
        ]
        assert all(why.startswith("by rule: ") for *_, why in row.convolutions)
        made = decide_all(model, x, "auto", "cpu")
        with convolutions_seen() as seen:
            model(x)
        assert all(c.w[2] == 7 for c in seen), "prepared blocks do not ask again"
        fusedres.refresh(model)
        with convolutions_seen() as seen:
            model(x)
        for convolution in seen:
            made.convolutions[convolution] = Algorithm("onednn", "as the test measured", "2026")
        put_in_force(made)
        rows = plan.explain(model, x).rows
    told = {(algorithm, why) for row in rows for _, algorithm, why in row.convolutions}
    assert told == {("onednn", "as the test measured")}


def test_it_leaves_the_model_as_it_was(model: FusedResNet, x: Tensor) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    plan.explain(model, x, train=True)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_errors_name_the_function(model: FusedResNet, x: Tensor) -> None:
    with pytest.raises(TypeError, match=r"plan.explain: `model` must be a torch.nn.Module; got int"):
        plan.explain(3, x)
    with pytest.raises(TypeError, match=r"plan.explain: `example_inputs` must be .*; got an empty list"):
        plan.explain(model, [])
    with fusedres.composition("plain"), pytest.raises(ValueError, match=r"plan.explain: .*'plain' is chosen"):
        plan.explain(model, x)
