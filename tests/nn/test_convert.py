"""fuse and unfuse: what they convert, what they share, what they leave alone."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torchvision.models
from torch import nn
from torchvision.models import detection, segmentation
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

import fusedres
from fusedres import FusedBasicBlock, FusedBottleneck, FusedResNet, fuse, unfuse
from fusedres.nn.stem import FusedIntermediateLayerGetter
from tests._fused import fused_calls
from tests._parity import assert_same_bits


def tiny() -> ResNet:
    return ResNet(BasicBlock, [1, 1, 1, 1], num_classes=3)


def tensors(model: nn.Module) -> dict[str, int]:
    return {name: id(t) for name, t in [*model.named_parameters(), *model.named_buffers()]}


def classes(model: nn.Module) -> list[type]:
    return [type(module) for module in model.modules()]


def test_a_copy_shares_tensors_and_leaves_the_original_alone() -> None:
    plain = tiny()
    before, attributes = classes(plain), {id(m): dict(m.__dict__) for m in plain.modules()}
    ours = fuse(plain)
    assert type(ours) is FusedResNet and type(ours.layer3[0]) is FusedBasicBlock
    assert classes(plain) == before
    assert {id(m): dict(m.__dict__) for m in plain.modules()} == attributes
    assert tensors(ours) == tensors(plain)
    assert not {id(m) for m in ours.modules()} & {id(m) for m in plain.modules()}


def test_changes_to_the_copys_modules_do_not_reach_the_original() -> None:
    plain = tiny()
    ours = fuse(plain)
    ours.fc = nn.Identity()
    ours.layer1[0].register_forward_hook(lambda *args: None)
    ours.conv1.register_buffer("extra", torch.ones(1))
    assert isinstance(plain.fc, nn.Linear)
    assert not plain.layer1[0]._forward_hooks and not hasattr(plain.conv1, "extra")


def test_one_optimiser_trains_both() -> None:
    plain = tiny().eval()
    ours = fuse(plain)
    optimiser = torch.optim.SGD(plain.parameters(), lr=0.1)
    x = torch.randn(2, 3, 32, 32)
    before = ours(x)
    ours(x).square().sum().backward()
    optimiser.step()
    assert not torch.equal(ours(x), before)
    torch.testing.assert_close(ours(x), plain(x))


def test_in_place_changes_classes_only() -> None:
    model = tiny()
    modules, held = [id(m) for m in model.modules()], tensors(model)
    assert fuse(model, inplace=True) is model
    assert type(model) is FusedResNet
    assert [id(m) for m in model.modules()] == modules and tensors(model) == held
    model.composition = "stats"
    assert unfuse(model, inplace=True) is model
    assert classes(model) == classes(tiny())
    assert [id(m) for m in model.modules()] == modules and tensors(model) == held
    assert not any("_composition" in m.__dict__ for m in model.modules())


def test_round_trip_is_torchvisions_model_to_the_bit() -> None:
    plain = tiny().eval()
    again = unfuse(fuse(plain))
    assert classes(again) == classes(plain)
    x = torch.randn(2, 3, 32, 32)
    assert_same_bits(again(x), plain(x), "logits")


@pytest.mark.parametrize("convert", [fuse, unfuse])
def test_converting_twice_is_converting_once(convert) -> None:
    once = convert(fuse(tiny()))
    assert classes(convert(once)) == classes(once)
    assert convert(once, inplace=True) is once


def test_attributes_hooks_and_buffers_survive() -> None:
    plain, seen = tiny(), []
    plain.normalisation = {"mean": [0.5]}
    plain.layer2.register_buffer("counter", torch.zeros(1))
    plain.layer1[0].conv1.note = "kept"
    plain.layer4.register_forward_hook(lambda *args: seen.append("hook"))
    ours = fuse(plain)
    assert ours.normalisation == {"mean": [0.5]} and ours.layer1[0].conv1.note == "kept"
    assert ours.layer2.counter is plain.layer2.counter
    ours(torch.randn(2, 3, 32, 32))
    assert seen == ["hook"]


def test_a_compiled_modules_copy_runs_its_own_modules() -> None:
    plain = tiny().eval()
    plain.compile(backend="eager")
    ours = fuse(plain)
    with fused_calls() as calls:
        ours(torch.randn(1, 3, 32, 32))
    assert calls == ["stem", *["basic_block"] * 4]


def test_a_module_used_twice_stays_one_module() -> None:
    block = BasicBlock(8, 8)
    ours = fuse(nn.Sequential(block, block))
    assert ours[0] is ours[1] and type(ours[0]) is FusedBasicBlock


class OwnBlock(Bottleneck):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * 2


class OwnResNet(ResNet):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * 2


def test_subclasses_keep_their_own_forward() -> None:
    plain = OwnResNet(OwnBlock, [1, 1, 1, 1], num_classes=2).eval()
    x = torch.randn(1, 3, 32, 32)
    ours = fuse(plain)
    assert classes(ours) == classes(plain)
    assert_same_bits(ours(x), plain(x), "logits")
    mixed = fuse(OwnResNet(Bottleneck, [1, 1, 1, 1], num_classes=2).eval())
    with fused_calls() as calls:
        mixed(x)
    assert type(mixed) is OwnResNet and calls == ["bottleneck"] * 4


@pytest.mark.parametrize("stem_inside", [True, False])
def test_intermediate_layer_getter(stem_inside: bool) -> None:
    layers = {"layer2": "a", "layer4": "b"} if stem_inside else {"relu": "a", "layer1": "b"}
    plain = IntermediateLayerGetter(tiny().eval(), layers)
    ours = fuse(plain)
    assert type(ours) is FusedIntermediateLayerGetter
    x = torch.randn(2, 3, 64, 64)
    with fused_calls() as calls:
        got = ours(x)
    assert calls == (["stem"] if stem_inside else []) + ["basic_block"] * (4 if stem_inside else 1)
    expected = plain(x)
    assert list(got) == list(expected) == ["a", "b"]
    for name in expected:
        torch.testing.assert_close(got[name], expected[name])
    assert type(unfuse(ours)) is IntermediateLayerGetter


def _freeze_statistics(model: nn.Module, x: torch.Tensor) -> nn.Module:
    """Statistics near the data's, so that activations neither vanish nor explode through 50 layers."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(x)
    return model.eval()


@pytest.mark.parametrize("name", ["fcn_resnet50", "deeplabv3_resnet50"])
def test_segmentation_models(name: str) -> None:
    plain = getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=3)
    x = torch.randn(2, 3, 33, 33)
    plain = _freeze_statistics(plain, x)
    ours = fuse(plain)
    with torch.no_grad(), fused_calls() as calls:
        got = ours(x)["out"]
        expected = plain(x)["out"]
    assert calls == ["stem", *["bottleneck"] * 16]
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())


def test_detection_model_trains_and_infers() -> None:
    """Faster R-CNN: a BackboneWithFPN around a ResNet-50 with FrozenBatchNorm2d below its trained layers."""
    plain = detection.fasterrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=3, min_size=64, max_size=64
    )
    ours = fuse(plain)
    assert type(ours.backbone.body) is FusedIntermediateLayerGetter
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad(), fused_calls() as calls:
        plain.eval(), ours.eval()
        got, expected = ours.backbone(x), plain.backbone(x)
    assert calls == ["stem", *["bottleneck"] * 16]
    for level in expected:
        largest = expected[level].abs().max().item()
        torch.testing.assert_close(got[level], expected[level], rtol=1e-3, atol=1e-3 * largest)
    ours.train()
    target = {"boxes": torch.tensor([[4.0, 4.0, 40.0, 40.0]]), "labels": torch.tensor([1])}
    losses = ours(list(x), [target])
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in ours.parameters() if p.requires_grad)


def test_frozen_batch_norms_of_a_detection_backbone_run_fused() -> None:
    body = detection.backbone_utils.resnet_fpn_backbone(
        backbone_name="resnet18",
        weights=None,
        norm_layer=torchvision.ops.misc.FrozenBatchNorm2d,
        trainable_layers=3,
    )
    with fused_calls() as calls:
        fuse(body.train())(torch.randn(2, 3, 64, 64))
    assert calls == ["stem", *["basic_block"] * 8]


@pytest.mark.parametrize("convert", [fuse, unfuse])
def test_arguments_are_checked(convert) -> None:
    name = convert.__name__
    with pytest.raises(TypeError, match=rf"{name}: `model` must be a torch.nn.Module; got dict"):
        convert({})
    with pytest.raises(TypeError, match=rf"{name}: `inplace` must be a bool; got 'yes'"):
        convert(tiny(), "yes")
    with pytest.raises(
        TypeError, match=rf"{name}: `model` must be converted before torch.compile.*OptimizedModule"
    ):
        convert(torch.compile(tiny()))


def test_fuse_refuses_a_model_without_residual_blocks() -> None:
    with pytest.raises(
        ValueError, match=r"fuse: `model` must contain torchvision residual blocks .*got AlexNet"
    ):
        fuse(torchvision.models.alexnet())
    assert type(unfuse(nn.Linear(2, 2))) is nn.Linear


def test_copies_and_pickles_stay_fused(tmp_path) -> None:
    model = fusedres.fuse(tiny()).eval()
    model.composition = "mainloop"
    x = torch.randn(1, 3, 32, 32)
    expected = model(x)
    torch.save(model, tmp_path / "model.pt")
    loaded = torch.load(tmp_path / "model.pt", weights_only=False)
    for twin in (copy.deepcopy(model), copy.copy(model), pickle.loads(pickle.dumps(model)), loaded):
        assert classes(twin) == classes(model)
        assert twin.composition == twin.layer1[0].composition == "mainloop"
        assert_same_bits(twin(x), expected, "logits")


def test_state_dicts_pass_between_plain_and_fused(tmp_path) -> None:
    plain, ours = tiny(), fuse(tiny())
    torch.save(plain.state_dict(), tmp_path / "plain.pt")
    assert str(ours.load_state_dict(torch.load(tmp_path / "plain.pt"))) == "<All keys matched successfully>"
    assert str(tiny().load_state_dict(ours.state_dict())) == "<All keys matched successfully>"
    assert (
        type(unfuse(fuse(Bottleneck(8, 2)))) is Bottleneck and type(fuse(Bottleneck(8, 2))) is FusedBottleneck
    )
