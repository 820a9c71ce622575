"""A plan in force is used, and by nobody whom somebody told otherwise."""

from __future__ import annotations

import copy
import io
import pickle
import time
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn
from torch.export import Dim
from torchvision.models.resnet import BasicBlock, Bottleneck

import fusedres
from fusedres import FusedBasicBlock, FusedResNet, plan
from fusedres._settings import COMPOSITION
from fusedres.backends.cpu import engine
from fusedres.ops import _functional
from fusedres.ops._planned import CONVOLUTIONS, Convolution, convolutions_seen
from fusedres.ops._registry import kernel
from fusedres.plan import _lookup
from fusedres.plan._lookup import DEFAULT, UNKNOWN, put_in_force, recall
from fusedres.plan._plan import Algorithm, empty
from tests._fused import fused_calls
from tests._parity import assert_same_bits

from .conftest import CPU, decide_all

ALL = ["stem", *["basic_block"] * 4]


@pytest.fixture
def methods(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """(back-end, composition) of each residual block that runs fused in training."""
    seen: list[tuple[str, str]] = []
    run = _functional.choose_composition

    def choose(backend: str, *args: object) -> str:
        composition = run(backend, *args)
        seen.append((backend, composition))
        return composition

    monkeypatch.setattr(_functional, "choose_composition", choose)
    return seen


def test_a_plain_plan_runs_torchvisions_forward(model: FusedResNet, x: Tensor) -> None:
    with torch.no_grad(), fused_calls() as calls:
        model(x)
        decide_all(model, x, "plain")
        calls.clear()
        out = model(x)
        assert calls == []
        assert_same_bits(out, fusedres.unfuse(model)(x), "the plain composition")
        model(x[:1])
        assert calls == ALL, "a block that the plan does not know"
        plan.clear()
        calls.clear()
        model(x)
        assert calls == ALL


@pytest.mark.parametrize("composition", ["pointwise", "stats", "mainloop"])
def test_a_plan_chooses_composition_and_back_end(
    composition: str, x: Tensor, methods: list[tuple[str, str]]
) -> None:
    block, x = FusedBasicBlock(3, 3), x[:, :, :9, :9]
    decide_all(block, x, composition, "reference")
    block(x)
    methods.clear()
    block(x)
    assert methods == [("reference", composition)]


def test_who_beats_whom(x: Tensor, methods: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """A context beats an attribute beats the process beats the environment beats a plan beats the rules."""
    block = FusedBasicBlock(3, 3)
    rule = _functional.COMPOSITIONS["cpu"]

    def composition() -> str:
        methods.clear()
        with fused_calls() as calls:
            block(x)
        return methods[-1][1] if calls else "plain"

    assert composition() == rule
    decide_all(block, x, "mainloop")
    assert composition() == "mainloop"
    monkeypatch.setattr(COMPOSITION, "_environment", "pointwise")
    assert composition() == "pointwise"
    monkeypatch.setattr(COMPOSITION, "_environment", "auto")
    monkeypatch.setattr(COMPOSITION, "_process", "stats")
    assert composition() == "stats"
    monkeypatch.setattr(COMPOSITION, "_process", None)
    block.composition = "plain"
    assert composition() == "plain"
    with fusedres.composition("auto"):
        assert composition() == "mainloop", "auto in a context leaves it to the plan again"
    with fusedres.composition("pointwise"):
        assert composition() == "pointwise"
    block.composition = None
    assert composition() == "mainloop"
    with fusedres.backend("reference"):
        assert composition() == _functional.COMPOSITIONS["reference"], "tuned for another back-end"
    plan.clear()
    assert composition() == rule


def test_a_back_end_that_is_not_here_leaves_it_to_the_rules(x: Tensor) -> None:
    """A plan may be read where Triton was removed since."""
    block = FusedBasicBlock(3, 3)
    decide_all(block, x, "mainloop", "triton")
    block(x)
    assert recall(block, x, None) == DEFAULT


def test_ops_on_different_back_ends(x: Tensor) -> None:
    """conv_wgrad and bn_finalize elsewhere: the same numbers within rounding, all of them computed there."""
    block, spec = FusedBasicBlock(3, 3), "cpu,conv_wgrad=reference,bn_finalize=reference"
    twin = copy.deepcopy(block)
    block(x).square().sum().backward()
    decide_all(copy.deepcopy(twin), x, "stats", spec)  # which runs it
    assert "fusedres_reference" in str(kernel(spec, "conv_wgrad"))
    assert "fusedres_reference" in str(kernel(spec, "bn_finalize"))
    assert "fusedres_cpu" in str(kernel(spec, "conv_dgrad"))
    twin(x).square().sum().backward()
    for (name, ours), theirs in zip(twin.named_parameters(), block.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4, msg=name)
    with torch.no_grad():
        torch.testing.assert_close(twin.eval()(x), block.eval()(x), rtol=1e-4, atol=1e-4)


def test_memory_recompute_is_not_given_away(x: Tensor) -> None:
    """A plan made without it may choose plain, which would keep more for backward."""
    skip = nn.Sequential(nn.Conv2d(3, 12, 1, bias=False), nn.BatchNorm2d(12))
    block = fusedres.FusedBottleneck(3, 3, downsample=skip)
    decide_all(block, x, "plain")
    with fused_calls() as calls:
        block(x)
        assert calls == []
        with fusedres.memory("recompute"):
            block(x)
    assert calls == ["bottleneck"]


def test_another_algorithm_packs_weights_anew(model: FusedResNet, x: Tensor) -> None:
    with torch.no_grad():
        with convolutions_seen() as seen:
            model(x)
        if not seen:
            pytest.skip("the CPU engine does not run here")
        first = model(x)
        made = empty(CPU)
        for convolution in seen:
            made.convolutions[convolution] = Algorithm("onednn", "by the test", "2026")
        put_in_force(made)
        with convolutions_seen() as now:
            second = model(x)
    assert set(now.values()) == {"onednn"}
    torch.testing.assert_close(second, first, rtol=1e-4, atol=1e-4)
    assert not torch.equal(second, first), "oneDNN rounds elsewhere"


def test_a_plans_algorithm_for_a_convolution() -> None:
    one = (1, 1)
    args = ((1, 8, 9, 9), torch.float32, (8, 8, 3, 3), one, one, one, 1)
    before = engine.choose(*args)
    key = Convolution("cpu", "infer", "float32", (1, 8, 9, 9), (8, 8, 3, 3), one, one, one, 1, 1)
    CONVOLUTIONS[key] = "onednn"
    assert engine.choose(*args) is None
    CONVOLUTIONS[key] = "an algorithm of the future"
    assert engine.choose(*args) is None, "what cannot run here is oneDNN's"
    CONVOLUTIONS.clear()
    assert engine.choose(*args) == before


# --- what torch does with models ---------------------------------------------------------------------


def test_copies_and_pickles_hold_no_plan(model: FusedResNet, x: Tensor) -> None:
    with torch.no_grad():
        decide_all(model, x, "plain")
        out = model(x)
        state = {name: set(vars(module)) for name, module in model.named_modules()}
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), _saved(model)):
            assert {name: set(vars(module)) for name, module in twin.named_modules()} == state
            assert_same_bits(twin(x), out, "a copy's logits")
        plan.clear()
        fresh = FusedResNet(BasicBlock, [1, 1, 1, 1], num_classes=3)
        assert {name: set(vars(module)) for name, module in fresh.named_modules()} == state


def _saved(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


class Graphs:
    """A torch.compile back-end that runs graphs as they are, and tells which had fused ops in them."""

    def __init__(self) -> None:
        torch.compiler.reset()
        self.fused: list[bool] = []

    def __call__(self, graph: fx.GraphModule, inputs: list[Tensor]) -> fx.GraphModule:
        self.fused.append(any(str(node.target).startswith("fusedres.") for node in graph.graph.nodes))
        return graph


def test_compiled_code_follows_the_plan(x: Tensor) -> None:
    block, graphs = FusedBasicBlock(3, 3).eval(), Graphs()
    compiled = torch.compile(block, backend=graphs, fullgraph=True)
    with torch.no_grad():
        compiled(x)
        assert graphs.fused == [True]
        decide_all(block, x, "plain")
        out = compiled(x)
        assert graphs.fused == [True, False], "a plan that was made since"
        assert_same_bits(out, block(x), "compiled")
        compiled(x)
        assert len(graphs.fused) == 2
        plan.clear()
        compiled(x)
        assert graphs.fused[2:] == [True]


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_a_whole_model_compiles_with_a_plan(block: type[BasicBlock | Bottleneck], x: Tensor) -> None:
    model = FusedResNet(block, [1, 1, 1, 1], num_classes=3)
    decide_all(model, x, "mainloop")
    twin, graphs = copy.deepcopy(model), Graphs()
    expected, got = model(x), torch.compile(twin, backend=graphs, fullgraph=True)(x)
    assert graphs.fused == [True]
    expected.square().sum().backward()
    got.square().sum().backward()
    for (name, ours), theirs in zip(twin.named_parameters(), model.parameters(), strict=True):
        assert_same_bits(ours.grad, theirs.grad, f"gradient of {name}")


def test_a_dynamic_batch_goes_by_the_rules(x: Tensor) -> None:
    """No plan knows a size that is not known: one graph for all, and no guard on the batch."""
    block, graphs = FusedBasicBlock(3, 3).eval(), Graphs()
    with torch.no_grad():
        decide_all(block, x, "plain")
        compiled = torch.compile(block, backend=graphs, fullgraph=True, dynamic=True)
        for batch in (2, 3, 5):
            compiled(torch.randn(batch, 3, 8, 8))
    assert graphs.fused == [True]


@pytest.mark.parametrize("strict", [False, True])
def test_export_takes_the_plan_in(strict: bool, x: Tensor) -> None:
    block = FusedBasicBlock(3, 3).eval()
    with torch.no_grad():
        decide_all(block, x, "plain")
        program = torch.export.export(block, (x,), strict=strict)
        assert not any("fusedres" in str(node.target) for node in program.graph.nodes)
        assert_same_bits(program.module()(x), block(x), "the exported program")
        dynamic = torch.export.export(
            block, (x,), dynamic_shapes=({0: Dim("batch", min=2, max=64)},), strict=strict
        )
        assert any("fusedres" in str(node.target) for node in dynamic.graph.nodes)
        again = torch.randn(7, 3, 32, 32).contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(dynamic.module()(again), block(again))


def test_symbolic_trace_has_torchvisions_nodes(model: FusedResNet, x: Tensor) -> None:
    with torch.no_grad():
        decide_all(model, x, "mainloop")
    names = [node.name for node in fx.symbolic_trace(model).graph.nodes]
    assert names == [node.name for node in fx.symbolic_trace(fusedres.unfuse(model)).graph.nodes]


# --- what it costs -----------------------------------------------------------------------------------


def test_only_so_many_sizes_are_remembered() -> None:
    block = FusedBasicBlock(3, 3).eval()
    with torch.no_grad():
        for size in range(4, 8 + _lookup.SITUATIONS_KEPT):
            block(torch.randn(1, 3, size, 4))
    assert len(_lookup._KNOWN[id(block)][1]) <= _lookup.SITUATIONS_KEPT


def test_modules_are_not_kept_alive(x: Tensor) -> None:
    block = FusedBasicBlock(3, 3).eval()
    with torch.no_grad():
        block(x)
    assert len(_lookup._KNOWN) == 1
    del block
    assert len(_lookup._KNOWN) == 0


def test_a_look_up_takes_less_than_five_microseconds(x: Tensor) -> None:
    """This thread's own time, the best of many short runs: neighbours cost it neither."""
    block = FusedBasicBlock(3, 3).eval()
    with torch.no_grad():
        block(x)
        assert recall(block, x, None) != UNKNOWN
        assert best_of(lambda: recall(block, x, None)) < 5e-6


def best_of(call: Callable[[], object], calls: int = 200, runs: int = 200) -> float:
    times = []
    for _ in range(runs):
        start = time.thread_time()
        for _ in range(calls):
            call()
        times.append((time.thread_time() - start) / calls)
    return min(times)


def test_nothing_is_warned_about(model: FusedResNet, x: Tensor) -> None:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("error")
        model(x)
