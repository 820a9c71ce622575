"""What tuning chooses by a clock under control, what it leaves alone, and what it says."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.models import resnet18
from torchvision.models.resnet import BasicBlock
from torchvision.ops.misc import FrozenBatchNorm2d

import fusedres
from fusedres import FusedBasicBlock, FusedResNet, plan
from fusedres.backends.cpu import engine
from fusedres.backends.cpu.algorithms import algorithms
from fusedres.ops import _dispatch
from fusedres.ops._planned import CONVOLUTIONS, Choice, Convolution
from fusedres.plan import Report, _candidates, _choosing
from fusedres.plan._lookup import in_force, recall
from tests._fused import fused_calls
from tests._parity import assert_same_bits

from .conftest import CPU

Clock = Callable[[dict[str, float]], None]

needs_engine = pytest.mark.skipif(
    engine.tile_isa(torch.float32) == "portable", reason="training on the CPU engine needs AVX2"
)
#: What this CPU runs beside it.
IN_PARTS = {"direct_f32_amx"} if engine.runs(engine.Algorithm.DIRECT_F32_AMX) else set()


def tune(model: nn.Module, x: Tensor, **options: object) -> Report:
    return fusedres.tune(model, x, progress=False, table=False, **options)


def chosen(report: Report) -> set[Choice | None]:
    return {outcome.choice for outcome in report.outcomes}


def test_inference_takes_the_faster(model: FusedResNet, x: Tensor, clock: Clock) -> None:
    clock({"fused on cpu": 0.5})
    assert chosen(tune(model, x)) == {Choice("auto", "cpu")}
    with torch.no_grad(), fused_calls() as calls:
        model(x)
    assert len(calls) == 5
    clock({"fused on cpu": 1.5})
    assert chosen(tune(model, x)) == {Choice("plain", "auto")}
    with torch.no_grad(), fused_calls() as calls:
        model(x)
    assert calls == [], "the later measurement holds"


@pytest.mark.parametrize("composition", ["pointwise", "stats", "mainloop"])
def test_training_takes_the_fastest_composition(
    composition: str, model: FusedResNet, x: Tensor, clock: Clock
) -> None:
    clock(
        {f"{name} on cpu": 0.8 for name in ("pointwise", "stats", "mainloop")}
        | {f"{composition} on cpu": 0.6}
    )
    report = tune(model, x, train=True)
    assert chosen(report) == {Choice(composition, "cpu")}
    assert {outcome.block.mode for outcome in report.outcomes} == {"train"}
    assert not model.training
    block = model.train().layer1[0]
    y = torch.randn(2, 64, 8, 8).contiguous(memory_format=torch.channels_last)
    block(y)
    assert recall(block, y, None) == Choice(composition, "cpu")


def test_frozen_norms_are_tuned_with_gradients(x: Tensor, clock: Clock) -> None:
    clock({"fused on cpu": 0.5, "mainloop on cpu": 0.5})
    model = FusedResNet(BasicBlock, [1, 1, 1, 1], num_classes=3, norm_layer=FrozenBatchNorm2d)
    report = tune(model, x, train=True)
    assert {outcome.block.mode for outcome in report.outcomes} == {"frozen"}
    assert chosen(report) == {Choice("auto", "cpu"), Choice("mainloop", "cpu")}


def test_a_winner_that_is_not_confirmed_loses(
    x: Tensor, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    rounds: list[list[str]] = []

    def interleave(calls: dict[str, object], baseline: str, *_: object) -> dict[str, list[float]]:
        rounds.append(list(calls))
        lucky = 0.5 if len(rounds) == 1 else 1.01
        return {name: [1.0 if name == baseline else lucky] * 9 for name in calls}

    monkeypatch.setattr(_choosing, "interleave", interleave)
    block = FusedBasicBlock(3, 3, norm_layer=nn.BatchNorm2d).eval()
    with fusedres.backend("reference"):
        (outcome,) = tune(block, x[:, :, :8, :8]).outcomes
    assert rounds == [["plain", "fused on reference"]] * 2
    assert outcome.choice == Choice("plain", "auto")
    assert "0.50" in outcome.why and "measured again, nothing else was clearly faster" in outcome.why


def test_the_model_is_left_as_it_was(model: FusedResNet, x: Tensor, clock: Clock) -> None:
    """Parameters, gradients, statistics, modes, the random state; and nothing new hangs on a module."""
    clock({"stats on cpu": 0.5})
    model.train().layer2.eval()
    model.layer3[0].bn1.momentum = None
    model(x).sum().backward()
    before, rng = copy.deepcopy(model), torch.get_rng_state()
    gradients = [p.grad.clone() for p in model.parameters()]
    tune(model, x)
    tune(model, x, train=True)
    tune(model, x, train=False)
    assert torch.equal(torch.get_rng_state(), rng)
    assert [m.training for m in model.modules()] == [m.training for m in before.modules()]
    assert [set(vars(m)) for m in model.modules()] == [set(vars(m)) for m in before.modules()]
    for (name, value), was in zip(model.state_dict().items(), before.state_dict().values(), strict=True):
        assert_same_bits(value, was, name)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert_same_bits(parameter.grad, gradient, "a gradient")


def test_hooks_on_a_block_are_not_called_by_the_timing(model: FusedResNet, x: Tensor, clock: Clock) -> None:
    clock({})
    calls = []
    model.layer1[0].register_forward_hook(lambda *args: calls.append(1))
    tune(model, x)
    assert len(calls) <= 2, "once for each run of the model"


def test_it_is_stored_and_found_by_the_next_process(
    model: FusedResNet, x: Tensor, clock: Clock, plans: Path
) -> None:
    clock({"fused on cpu": 0.5})
    report = tune(model, x)
    (path,) = plans.glob("*.json")
    assert report.stored == str(path)
    content = json.loads(path.read_text())
    assert content["torch"] == torch.__version__ and len(content["blocks"]) == 5
    (entry, *_) = content["blocks"].values()
    assert entry["seconds"] == {"plain": 1.0, "fused on cpu": 0.5}
    plan.clear()
    with torch.no_grad():
        model(x)
        assert recall(model.layer1[0], torch.empty(0), None) != Choice("auto", "cpu")
    assert {entry.choice for entry in in_force(CPU).blocks.values()} == {Choice("auto", "cpu")}


def test_where_nothing_can_be_stored_it_holds_in_this_process(
    model: FusedResNet, x: Tensor, clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock({"fused on cpu": 1.5})
    monkeypatch.setenv("FUSEDRES_PLANS", "0")
    assert tune(model, x).stored == "nowhere: FUSEDRES_PLANS is 0"
    (tmp_path / "file").touch()
    monkeypatch.setenv("FUSEDRES_PLANS", str(tmp_path / "file"))
    report = tune(model, x)
    assert report.stored is not None and report.stored.startswith("nowhere: ")
    with torch.no_grad(), fused_calls() as calls:
        model(x)
    assert calls == []


def test_the_budget(model: FusedResNet, x: Tensor, clock: Clock) -> None:
    clock({"fused on cpu": 0.5})
    report = tune(model, x, budget_s=1e-9)
    assert chosen(report) == {None}
    assert {outcome.why for outcome in report.outcomes} == {"not timed: the budget was spent"}
    assert "by the default rules" in str(report)
    assert chosen(tune(model, x, budget_s=1000)) == {Choice("auto", "cpu")}


@needs_engine
def test_convolutions_take_the_faster_algorithm(x: Tensor, clock: Clock) -> None:
    clock({"fused on cpu": 0.5, "onednn": 0.5})
    block = FusedBasicBlock(64, 64).eval()
    y = torch.randn(2, 64, 8, 8).contiguous(memory_format=torch.channels_last)
    # A clock that knows no tables times the block with oneDNN as the block without: no gain, so it goes.
    tune(block, y)
    assert set(CONVOLUTIONS.values()) <= {"winograd_f32"}


@needs_engine
def test_an_algorithm_must_make_its_block_faster(
    x: Tensor, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock({"fused on cpu": 0.5, "onednn": 0.5})
    verdicts = []

    def median_ratio(samples: object) -> float:
        verdicts.append(samples)
        return 0.9

    monkeypatch.setattr(_choosing, "_median_ratio", median_ratio)
    block = FusedBasicBlock(64, 64).eval()
    y = torch.randn(2, 64, 8, 8).contiguous(memory_format=torch.channels_last)
    tune(block, y)
    assert set(CONVOLUTIONS.values()) == {"onednn"}
    (samples,) = verdicts
    assert set(samples) == {"default", "planned"}


@needs_engine
def test_training_asks_for_both_directions(clock: Clock) -> None:
    clock({})
    block = FusedBasicBlock(64, 64)
    y = torch.randn(2, 64, 32, 32).contiguous(memory_format=torch.channels_last).requires_grad_()
    tune(block, y)
    assert {convolution.use for convolution in CONVOLUTIONS} == {"fprop", "dgrad", "wgrad"}


class operators(TorchDispatchMode):
    """The names of the operators that are called meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __enter__(self) -> list[str]:
        super().__enter__()
        return self.names

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


def assert_one_convolution(results: dict[str, Tensor]) -> None:
    """Sums of at most 216 products of values near one, in fp32.

    216 roundings of partial sums near 15, each 2⁻²⁴ of them, add up to 15 · 15 · 2⁻²⁴ = 1.3e-5, rms; seventy
    times that is allowed. Another convolution's sums differ by about their own size, 15.
    """
    for name, result in results.items():
        torch.testing.assert_close(result, results["onednn"], rtol=0, atol=1e-3, msg=name)


@needs_engine
@pytest.mark.parametrize("use", ["infer", "fprop", "dgrad", "wgrad"])
def test_the_algorithms_of_one_convolution_agree(use: str) -> None:
    """What is timed against each other computes the same."""
    one = (1, 1)
    calls = algorithms(Convolution("cpu", use, "float32", (2, 16, 9, 9), (24, 16, 3, 3), one, one, one, 1, 1))
    assert set(calls) == {"direct_f32", "winograd_f32", "onednn"} | (IN_PARTS if use != "wgrad" else set())
    results = {name: call() for name, call in calls.items()}
    assert_one_convolution(results)


def test_inference_is_timed_with_weights_that_are_packed() -> None:
    """A model packs its weights once: what is timed is the call after that."""
    one = (1, 1)
    calls = algorithms(
        Convolution("cpu", "infer", "float32", (2, 16, 9, 9), (24, 16, 3, 3), one, one, one, 1, 1)
    )
    packs: dict[str, list[bool]] = {}
    for name, call in calls.items():
        for _ in range(2):
            with torch.no_grad(), operators() as ran:
                call()
            packs.setdefault(name, []).append(any(op.endswith("conv_pack") or "reorder" in op for op in ran))
    assert packs == {name: [True, False] for name in calls}


@needs_engine
@pytest.mark.parametrize("taps", [1, 3])
def test_the_algorithms_of_a_strided_dgrad_agree(taps: int) -> None:
    geometry = (2, 2), (taps // 2, taps // 2), (1, 1)
    calls = algorithms(
        Convolution("cpu", "strided_dgrad", "float32", (2, 16, 9, 9), (24, 16, taps, taps), *geometry, 1, 1)
    )
    assert set(calls) == {"direct_f32", "onednn"} | IN_PARTS
    results = {name: call() for name, call in calls.items()}
    assert_one_convolution(results)


def test_single_ops_move_to_the_back_end_that_is_faster(
    x: Tensor, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With two back-ends for a device: the whole block on the better one, then op by op."""
    monkeypatch.setitem(_dispatch.AUTO_ORDER, "cpu", ("cpu", "reference"))
    moved = "stats on cpu,conv_wgrad=reference"
    clock({"stats on cpu": 0.5, moved: 0.4, "stats on reference": 0.9})
    block = FusedBasicBlock(3, 3)
    y = x[:, :, :9, :9].contiguous(memory_format=torch.channels_last)
    (outcome,) = tune(block, y).outcomes
    assert outcome.choice == Choice("stats", "cpu,conv_wgrad=reference")
    assert set(outcome.seconds) == {"plain"} | {
        f"{composition} on {backend}"
        for composition in ("pointwise", "stats", "mainloop")
        for backend in ("cpu", "reference")
    }
    block(y).sum().backward()


def test_a_candidate_that_fails_is_named_and_left_out(
    x: Tensor, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def candidates(*args: object) -> list[Choice]:
        return [*_candidates.candidates(*args), Choice("stats", "reference,conv_stats=nobody")]

    monkeypatch.setattr(_choosing, "candidates", candidates)
    clock({"stats on cpu": 0.5})
    block = FusedBasicBlock(3, 3)
    (outcome,) = tune(block, x[:, :, :9, :9]).outcomes
    assert outcome.choice == Choice("stats", "cpu")
    assert "stats on reference,conv_stats=nobody cannot run: ValueError" in outcome.why


def test_a_choice_that_changes_what_follows_is_followed(model: FusedResNet, clock: Clock) -> None:
    """A plain stem hands an NCHW image on as NCHW: the first block is tuned for that as well."""
    clock({"fused on cpu": 1.5})
    report = tune(model, torch.randn(2, 3, 32, 32))
    layouts = {outcome.block.layout for outcome in report.outcomes}
    assert layouts == {"nchw", "nhwc"}
    with torch.no_grad(), fused_calls() as calls:
        model(torch.randn(2, 3, 32, 32))
    assert calls == []


def test_models_around_a_resnet(clock: Clock) -> None:
    """A fused backbone in somebody's model, more than one argument, names as in the model."""

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = fusedres.fuse(resnet18(num_classes=4))

        def forward(self, images: Tensor, factor: float) -> Tensor:
            return self.backbone(images) * factor

    clock({"fused on cpu": 0.5})
    model = Classifier().eval()
    report = fusedres.tune(model, (torch.randn(1, 3, 32, 32), 2.0), progress=False, table=False)
    names = {name for outcome in report.outcomes for name in outcome.layers}
    assert {"backbone", "backbone.layer1.0", "backbone.layer4.1"} <= names
    assert "backbone.conv1 … maxpool" in str(report)


def test_autocast_is_tuned_as_autocast(x: Tensor, clock: Clock) -> None:
    clock({"stats on cpu": 0.5})
    block = FusedBasicBlock(3, 3)
    with torch.autocast("cpu", torch.bfloat16):
        (outcome,) = tune(block, x[:, :, :9, :9]).outcomes
    assert outcome.block.dtype == "autocast bfloat16"
    assert outcome.choice == Choice("stats", "cpu")


def test_the_report(model: FusedResNet, x: Tensor, clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    clock({"fused on cpu": 0.5})
    fusedres.tune(model, x)
    shown = capsys.readouterr()
    assert shown.out == "", "stdout is the program's own"
    text = str(tune(model, x))
    for words in ("conv1 … maxpool", "layer4.0", "fused on cpu", "1000.00 → 500.00", "0.50 (0.50–0.50)"):
        assert words in text
    assert "plan stored" in shown.err


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model": 3}, TypeError, r"tune: `model` must be a torch.nn.Module; got int"),
        ({"model": nn.ReLU()}, ValueError, r"tune: `model` must run fused blocks; ReLU ran none"),
        ({"example_inputs": None}, TypeError, r"`example_inputs` must be a tensor, or a list .*got NoneType"),
        ({"example_inputs": ()}, TypeError, r"tune: `example_inputs` must be .*; got an empty tuple"),
        ({"example_inputs": []}, TypeError, r"tune: `example_inputs` must be .*; got an empty list"),
        ({"train": 1}, TypeError, r"tune: `train` must be True, False or None; got 1"),
        (
            {"budget_s": 0},
            ValueError,
            r"tune: `budget_s` must be a positive number of seconds.*got 0",
        ),
        ({"budget_s": float("nan")}, ValueError, r"`budget_s` must be a positive number.*got nan"),
        ({"budget_s": True}, ValueError, r"`budget_s` must be a positive number.*got True"),
    ],
)
def test_errors_name_argument_rule_and_what_was_given(
    arguments: dict[str, object], error: type[Exception], message: str, model: FusedResNet, x: Tensor
) -> None:
    given = {"model": model, "example_inputs": x, "progress": False, **arguments}
    with pytest.raises(error, match=message):
        fusedres.tune(**given)


def test_more_errors(model: FusedResNet, x: Tensor) -> None:
    with pytest.raises(TypeError, match=r"must be given before torch.compile and torch.jit"):
        tune(torch.compile(model), x)
    with (
        fusedres.composition("stats"),
        pytest.raises(ValueError, match="composition 'stats' is chosen for all"),
    ):
        tune(model, x)
    with (
        torch.inference_mode(),
        pytest.raises(ValueError, match=r"training needs gradients; got .*inference_mode"),
    ):
        tune(model, x, train=True)
    assert not model.training
