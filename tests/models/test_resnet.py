"""FusedResNet as an object: what runs fused, its parts on their own, memory formats, composition."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.ops.misc import FrozenBatchNorm2d

import fusedres
from fusedres import FusedResNet
from tests._fused import fused_calls, results
from tests._parity import assert_same_bits, assert_within_two_x

RESNET18 = ["stem", *["basic_block"] * 8]


@pytest.fixture(scope="module")
def model() -> FusedResNet:
    return fusedres.resnet18(num_classes=4).eval()


def tiny(**kwargs: object) -> FusedResNet:
    return FusedResNet(BasicBlock, [1, 1, 1, 1], num_classes=3, **kwargs)


@pytest.mark.parametrize("training", [True, False])
def test_stem_and_every_block_run_fused(model: FusedResNet, training: bool) -> None:
    with fused_calls() as calls:
        model.train(training)(torch.randn(2, 3, 32, 32))
    model.eval()
    assert calls == RESNET18


def test_nchw_and_channels_last_inputs_give_the_same_bits(model: FusedResNet) -> None:
    x = torch.randn(2, 3, 40, 33)
    assert_same_bits(model(x), model(x.contiguous(memory_format=torch.channels_last)), "logits")


def test_activations_stay_channels_last_and_parameters_as_they_are(model: FusedResNet) -> None:
    strides = [p.stride() for p in model.parameters()]
    seen = []
    hooks = [
        layer.register_forward_hook(lambda m, a, out: seen.append(out))
        for layer in (model.layer1, model.layer4)
    ]
    model(torch.randn(2, 3, 64, 64))
    for hook in hooks:
        hook.remove()
    assert all(out.is_contiguous(memory_format=torch.channels_last) for out in seen) and len(seen) == 2
    assert [p.stride() for p in model.parameters()] == strides


def test_parts_work_when_called_alone(model: FusedResNet) -> None:
    plain = fusedres.unfuse(model)
    assert type(plain) is ResNet
    x = torch.randn(2, 3, 32, 32)
    for name in ("conv1", "bn1", "relu", "maxpool"):
        assert_same_bits(getattr(model, name)(x), getattr(plain, name)(x), name)
        x = getattr(plain, name)(x).detach()
    with fused_calls() as calls:
        out = model.layer1(x)
    assert calls == ["basic_block"] * 2
    assert out.shape == plain.layer1(x).shape


@pytest.mark.parametrize(
    ("options", "fused"),
    [
        ({"norm_layer": partial(nn.GroupNorm, 8)}, []),
        ({"norm_layer": nn.SyncBatchNorm}, []),
        ({"norm_layer": partial(nn.InstanceNorm2d, affine=True)}, []),
        ({"norm_layer": FrozenBatchNorm2d}, ["stem", *["basic_block"] * 4]),
        ({"norm_layer": partial(nn.BatchNorm2d, track_running_stats=False)}, ["stem", *["basic_block"] * 4]),
        ({"norm_layer": partial(nn.BatchNorm2d, eps=0.1, momentum=None)}, ["stem", *["basic_block"] * 4]),
    ],
    ids=["GroupNorm", "SyncBatchNorm", "InstanceNorm", "Frozen", "no-stats", "cumulative"],
)
def test_norm_layers(options: dict[str, object], fused: list[str]) -> None:
    """What the ops know runs fused, everything else unfused, and both are right."""
    ours = tiny(**options).eval()
    for module in ours.modules():
        if isinstance(module, FrozenBatchNorm2d):
            for buffer in module.buffers():
                nn.init.uniform_(buffer, 0.5, 1.5)
    plain = fusedres.unfuse(ours)
    x, weights = torch.randn(3, 3, 64, 64).contiguous(memory_format=torch.channels_last), torch.randn(3, 3)
    with fused_calls() as calls:
        out = ours(x)
    assert calls == fused
    ref, yardstick = (results(plain, x, weights, dtype)["out"] for dtype in (torch.float64, torch.float32))
    assert_within_two_x(out, ref, yardstick, "logits")
    if not fused:
        assert_same_bits(out, yardstick, "an unfused model's logits")


def test_a_replaced_stem_runs_unfused_and_right() -> None:
    """The usual change for small images; the blocks stay fused."""
    ours = tiny().eval()
    ours.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    ours.maxpool = nn.Identity()
    x = torch.randn(2, 3, 16, 16)
    with fused_calls() as calls:
        out = ours(x)
    assert calls == ["basic_block"] * 4
    torch.testing.assert_close(out, fusedres.unfuse(ours)(x))


def test_composition_reaches_every_block_and_is_checked(model: FusedResNet) -> None:
    assert model.composition is None
    try:
        model.composition = "plain"
        assert {block.composition for layer in (model.layer1, model.layer4) for block in layer} == {"plain"}
        x = torch.randn(2, 3, 32, 32)
        with fused_calls() as calls:
            out = model(x)
        assert not calls
        assert_same_bits(out, fusedres.unfuse(model)(x), "the plain composition")
        with fusedres.composition("auto"), fused_calls() as calls:
            model(x)
        assert calls == RESNET18, "a context beats the attribute"
        with pytest.raises(ValueError, match=r"FusedResNet.composition: must be one of .*got 'fastest'"):
            model.composition = "fastest"
        assert model.composition == "plain"
    finally:
        model.composition = None
    with fusedres.composition("plain"), fused_calls() as calls:
        model(x)
    assert not calls


@pytest.mark.parametrize(
    "x",
    [
        torch.randn(3, 32, 32),
        torch.randn(1, 3, 32),
        torch.randint(9, (1, 3, 32, 32)),
        torch.randn(1, 4, 32, 32),
    ],
)
def test_bad_images_are_refused(model: FusedResNet, x: torch.Tensor) -> None:
    """By torchvision's own forward, or by the stem op; never silently."""
    with pytest.raises((RuntimeError, ValueError, TypeError)) as error:
        model(x)
    assert str(error.value)


def test_torch_jit_script_is_refused_by_name(model: FusedResNet) -> None:
    with pytest.raises(RuntimeError, match=r"FusedResNet cannot be scripted.*fusedres\.unfuse\(model\)"):
        torch.jit.script(model)
    with pytest.raises(RuntimeError, match=r"FusedBasicBlock cannot be scripted.*unfuse"):
        torch.jit.script(nn.Sequential(model.layer1))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_torch_jit_script_takes_the_unfused_model(model: FusedResNet) -> None:
    x = torch.randn(1, 3, 32, 32)
    scripted = torch.jit.script(fusedres.unfuse(model))
    torch.testing.assert_close(scripted(x), model(x))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_torch_jit_trace_records_torchvisions_ops(model: FusedResNet) -> None:
    x = torch.randn(1, 3, 32, 32)
    traced = torch.jit.trace(model, x)
    assert "fusedres::" not in str(traced.inlined_graph)
    torch.testing.assert_close(traced(x), model(x))


def test_builders_answer_to_torchvisions_isinstance(model: FusedResNet) -> None:
    assert isinstance(model, ResNet) and isinstance(model.layer1[0], BasicBlock)
