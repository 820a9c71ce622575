"""torch.compile, torch.export and FX on whole models."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, fx, nn
from torch.autograd import forward_ad
from torch.export import Dim
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names
from torchvision.models.resnet import BasicBlock, Bottleneck

import fusedres
from fusedres import FusedBasicBlock, FusedResNet
from tests._parity import assert_same_bits, assert_within_two_x

BLOCKS = pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
MODES = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])


def tiny(block: type[BasicBlock | Bottleneck]) -> FusedResNet:
    return FusedResNet(block, [1, 1, 1, 1], num_classes=3)


def images() -> Tensor:
    return torch.randn(2, 3, 33, 33)


@pytest.fixture(autouse=True)
def _fresh_dynamo() -> None:
    torch.compiler.reset()


class Recorder:
    """A torch.compile back-end that runs graphs as they are, and keeps what they call."""

    def __init__(self) -> None:
        self.graphs: list[list[str]] = []

    def __call__(self, graph: fx.GraphModule, inputs: list[Tensor]) -> fx.GraphModule:
        self.graphs.append([str(node.target) for node in graph.graph.nodes])
        return graph

    @property
    def fused(self) -> list[bool]:
        return [any(target.startswith("fusedres.") for target in graph) for graph in self.graphs]


@MODES
@BLOCKS
def test_fullgraph_compile(block: type[BasicBlock | Bottleneck], training: bool) -> None:
    """One graph for the whole model, with fused ops alone in it; the same bits forward and backward."""
    ours = tiny(block).train(training)
    twin, recorder = copy.deepcopy(ours), Recorder()
    x = images()
    expected = ours(x)
    expected.square().sum().backward()
    got = torch.compile(twin, backend=recorder, fullgraph=True)(x)
    got.square().sum().backward()
    (graph,) = recorder.graphs
    blocks = [t for t in graph if t in ("fusedres.basic_block.default", "fusedres.bottleneck.default")]
    assert graph.count("fusedres.stem.default") == 1 and len(blocks) == 4
    assert not any("batch_norm" in target or "conv2d" in target for target in graph)
    assert_same_bits(got, expected, "logits")
    for (name, mine), theirs in zip(twin.named_parameters(), ours.parameters(), strict=True):
        assert_same_bits(mine.grad, theirs.grad, f"gradient of {name}")
    for (name, mine), theirs in zip(twin.named_buffers(), ours.buffers(), strict=True):
        assert_same_bits(mine, theirs, name)


@pytest.mark.slow
@MODES
def test_inductor(training: bool) -> None:
    ours = tiny(BasicBlock).train(training)
    twin = copy.deepcopy(ours)
    x = images()
    expected, got = ours(x), torch.compile(twin, fullgraph=True)(x)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    expected.sum().backward()
    got.sum().backward()
    torch.testing.assert_close(twin.conv1.weight.grad, ours.conv1.weight.grad, rtol=1e-3, atol=1e-3)


def test_compiled_code_follows_composition() -> None:
    """Guards: what decides between fused and plain is seen again when it changes."""
    ours, recorder = FusedBasicBlock(8, 8).eval(), Recorder()
    compiled = torch.compile(ours, backend=recorder, fullgraph=True)
    x = torch.randn(2, 8, 6, 6)
    with torch.no_grad():
        compiled(x)
        assert recorder.fused == [True]
        with fusedres.composition("plain"):
            compiled(x)
        assert recorder.fused == [True, False]
        ours.composition = "plain"
        compiled(x)
        assert not any(recorder.fused[1:])


def head_by_torch(model: nn.Module) -> None:
    """As in a graph, where pooling and classifier stay torch's; their fused op sums in another order."""
    model.get_submodule("fc").register_forward_hook(lambda *_: None)


@MODES
@BLOCKS
def test_export(block: type[BasicBlock | Bottleneck], training: bool) -> None:
    ours = tiny(block).train(training)
    x = images()
    program = torch.export.export(ours, (x,))
    targets = [str(node.target) for node in program.graph.nodes]
    assert "fusedres.stem.default" in targets
    again = program.module()
    head_by_torch(ours)
    with torch.no_grad():
        assert_same_bits(again(x), ours(x), "the exported program's logits")
    for name, buffer in ours.named_buffers():
        assert_same_bits(again.get_buffer(name), buffer, name)


def test_export_with_a_dynamic_batch() -> None:
    ours = tiny(BasicBlock).eval()
    program = torch.export.export(ours, (images(),), dynamic_shapes=({0: Dim("batch", min=2, max=64)},))
    x = torch.randn(5, 3, 33, 33)
    head_by_torch(ours)
    with torch.no_grad():
        assert_same_bits(program.module()(x), ours(x), "logits of another batch size")


@pytest.mark.parametrize("op", ["block", "kernel"])
def test_weights_computed_in_a_compiled_graph(op: str, backend: str) -> None:
    """Inductor gives several of them one object, and writes to it without counting versions."""
    mean, var = torch.zeros(8), torch.ones(8)

    def conv(x: Tensor, w: Tensor) -> Tensor:
        if op == "block":
            return fusedres.conv_bn_act(x, w * 2, None, None, mean * 2, var * 3, padding=1)
        return fusedres.ops.conv_affine_act(x, w * 2, var * 3, mean + 1, padding=1)

    def two(x: Tensor, first: Tensor, second: Tensor) -> Tensor:
        return conv(conv(x, first), second)

    x = torch.randn(2, 8, 9, 9).contiguous(memory_format=torch.channels_last)
    with torch.no_grad(), fusedres.backend(backend):
        compiled = torch.compile(two, fullgraph=True)
        for _ in range(2):
            first, second = torch.randn(8, 8, 3, 3), torch.randn(8, 8, 3, 3)
            torch.testing.assert_close(compiled(x, first, second), two(x, first, second))


@BLOCKS
def test_inductor_under_autocast(block: type[BasicBlock | Bottleneck]) -> None:
    """Every weight is cast inside the graph."""
    ours, x = FusedResNet(block, [2, 2, 1, 1], num_classes=3).eval(), images()
    plain = fusedres.unfuse(copy.deepcopy(ours))
    with torch.no_grad():
        exact = copy.deepcopy(plain).double()(x.double())
        with torch.autocast("cpu", torch.bfloat16):
            got, torchs = torch.compile(ours, fullgraph=True)(x), plain(x)
    assert_within_two_x(got, exact, torchs, "logits")


def test_compiled_inference_packs_its_parameters_once() -> None:
    pytest.importorskip("fusedres._C")
    ours = tiny(Bottleneck).eval()
    compiled = torch.compile(ours, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        compiled(images())
        with torch.profiler.profile() as profile:
            compiled(images())
    names = {event.key for event in profile.key_averages()}
    assert any(name.startswith("fusedres::bottleneck") for name in names)
    assert not any(name.split("::")[-1] == "conv_pack" or "reorder" in name for name in names)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_forward_mode_gradients_are_torchvisions(training: bool) -> None:
    ours = tiny(BasicBlock).train(training)
    plain = fusedres.unfuse(copy.deepcopy(ours))
    x, direction = images(), images()
    tangents = []
    for model in (ours, plain):
        with torch.no_grad(), forward_ad.dual_level():
            tangents.append(forward_ad.unpack_dual(model(forward_ad.make_dual(x, direction))).tangent)
    assert tangents[0] is not None
    assert_same_bits(tangents[0], tangents[1], "tangent of the logits")


def test_functionals_under_function_transforms() -> None:
    """jvp, grad and vmap know aten's ops only: the functionals then are those."""
    x, w, mean, var = torch.randn(2, 8, 9, 9), torch.randn(8, 8, 3, 3), torch.zeros(8), torch.ones(8)

    def ours(x: Tensor, w: Tensor) -> Tensor:
        return fusedres.conv_bn_act(x, w, None, None, mean, var, padding=1).sum((0, 2, 3))

    def plain(x: Tensor, w: Tensor) -> Tensor:
        y = nn.functional.conv2d(x, w, padding=1)
        return nn.functional.batch_norm(y, mean, var).relu().sum((0, 2, 3))

    for run in (
        lambda f: torch.func.jvp(f, (x, w), (x, w))[1],
        lambda f: torch.func.grad(lambda w: f(x, w).sum())(w),
        lambda f: torch.func.jacrev(f, 1)(x, w),
    ):
        torch.testing.assert_close(run(ours), run(plain))


@BLOCKS
def test_symbolic_trace_has_torchvisions_nodes(block: type[BasicBlock | Bottleneck]) -> None:
    ours = tiny(block).eval()
    plain = fusedres.unfuse(ours)
    traced, reference = fx.symbolic_trace(ours), fx.symbolic_trace(plain)
    assert [(n.op, n.name, str(n.target)) for n in traced.graph.nodes] == [
        (n.op, n.name, str(n.target)) for n in reference.graph.nodes
    ]
    assert_same_bits(traced(images().zero_()), plain(torch.zeros(2, 3, 33, 33)), "the traced model's logits")


def test_create_feature_extractor() -> None:
    ours = tiny(Bottleneck).eval()
    plain = fusedres.unfuse(ours)
    assert get_graph_node_names(ours) == get_graph_node_names(plain)
    nodes = ["maxpool", "layer2.0.bn2", "layer3", "flatten"]
    x = images()
    got, expected = create_feature_extractor(ours, nodes)(x), create_feature_extractor(plain, nodes)(x)
    assert list(got) == nodes
    for name in nodes:
        assert_same_bits(got[name], expected[name], name)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_onnx_export_has_standard_operators_only() -> None:
    pytest.importorskip("onnxscript")
    program = torch.onnx.export(tiny(BasicBlock).eval(), (images(),), dynamo=True, verbose=False)
    assert program is not None
    operators = {node.op_type for node in program.model.graph}
    assert {"Conv", "Relu", "MaxPool"} <= operators
    assert all(node.domain in ("", "ai.onnx") for node in program.model.graph)
