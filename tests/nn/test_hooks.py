"""Hooks fire as on torchvision's blocks, wherever they are registered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import fusedres
from fusedres import FusedBottleneck
from tests._fused import fused_calls

Register = Callable[[nn.Module, list[str]], Any]

KINDS: dict[str, Register] = {
    "forward": lambda m, seen: m.register_forward_hook(lambda *a: seen.append("hook")),
    "forward-kwargs": lambda m, seen: m.register_forward_hook(
        lambda *a: seen.append("hook"), with_kwargs=True
    ),
    "forward-always": lambda m, seen: m.register_forward_hook(
        lambda *a: seen.append("hook"), always_call=True
    ),
    "forward-pre": lambda m, seen: m.register_forward_pre_hook(lambda *a: seen.append("hook")),
    "backward": lambda m, seen: m.register_full_backward_hook(lambda *a: seen.append("hook")),
    "backward-pre": lambda m, seen: m.register_full_backward_pre_hook(lambda *a: seen.append("hook")),
}
# Not bn3 and downsample.1 alike: torchvision adds in place to bn3's output, which torch forbids behind a
# backward hook.
INNER = ["conv1", "bn1", "conv3", "downsample", "downsample.0", "downsample.1"]


def block() -> FusedBottleneck:
    downsample = nn.Sequential(nn.Conv2d(8, 16, 1, bias=False), nn.BatchNorm2d(16))
    made = FusedBottleneck(8, 4, downsample=downsample)
    made.relu.inplace = False  # torch forbids backward hooks on the input of an in-place ReLU
    return made


def run(module: nn.Module, channels: int = 8) -> list[str]:
    with fused_calls() as calls:
        module(torch.randn(2, channels, 33, 33, requires_grad=True)).sum().backward()
    return calls


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("name", INNER)
def test_hooks_inside_a_block(name: str, kind: Register) -> None:
    ours, seen = block(), []
    handle = kind(ours.get_submodule(name), seen)
    assert run(ours) == [] and seen == ["hook"]
    handle.remove()
    assert run(ours) == ["bottleneck"] and seen == ["hook"]


def test_a_relus_hook_fires_for_each_of_its_three_uses() -> None:
    ours, seen = block(), []
    ours.relu.register_forward_hook(lambda *args: seen.append("hook"))
    assert run(ours) == [] and seen == ["hook"] * 3


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_hooks_on_the_block_itself_leave_it_fused(kind: Register) -> None:
    ours, seen = block(), []
    kind(ours, seen)
    assert run(ours) == ["bottleneck"] and seen == ["hook"]


@pytest.mark.parametrize("name", ["conv1", "bn1", "relu", "maxpool"])
def test_hooks_on_the_stem(name: str) -> None:
    model, seen = fusedres.resnet18(num_classes=2), []
    handle = model.get_submodule(name).register_forward_hook(lambda *args: seen.append("hook"))
    assert run(model, 3) == ["basic_block"] * 8 and seen == ["hook"]
    handle.remove()
    assert run(model, 3)[0] == "stem"


@pytest.mark.parametrize(
    "register",
    [
        nn.modules.module.register_module_forward_hook,
        nn.modules.module.register_module_forward_pre_hook,
    ],
)
def test_global_hooks_see_every_submodule(register: Callable[..., Any]) -> None:
    ours, seen = block(), set()
    handle = register(lambda module, *args: seen.add(id(module)) or None)
    try:
        assert run(ours) == []
    finally:
        handle.remove()
    assert seen >= {id(module) for module in ours.modules()}
    assert run(ours) == ["bottleneck"]


def test_parameter_hooks_fire_in_a_fused_block() -> None:
    ours, seen = block(), []
    ours.conv2.weight.register_hook(lambda grad: seen.append("tensor"))
    ours.bn1.weight.register_post_accumulate_grad_hook(lambda p: seen.append("accumulated"))
    assert run(ours) == ["bottleneck"]
    assert sorted(seen) == ["accumulated", "tensor"]
