"""A block's remembered inference: used while nothing has changed, and never after something has."""

from __future__ import annotations

import copy
import gc
import io
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

import fusedres
from fusedres._build import extension_missing
from fusedres.backends.cpu import engine
from fusedres.nn import _recall
from tests._parity import assert_same_bits

if extension_missing("_C") is not None or engine.tile_isa(torch.float32) == "portable":
    pytest.skip("nothing prepares whole blocks here", allow_module_level=True)


def made(kind: str) -> nn.Module:
    torch.manual_seed(0)
    if kind == "basic":
        upstream: nn.Module = BasicBlock(16, 16)
    else:
        skip = nn.Sequential(nn.Conv2d(16, 32, 1, 2, bias=False), nn.BatchNorm2d(32))
        upstream = Bottleneck(16, 8, 2, skip)
    for module in upstream.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return fusedres.fuse(upstream.eval(), inplace=True)


@pytest.fixture(params=["basic", "bottleneck"])
def block(request: pytest.FixtureRequest) -> nn.Module:
    return made(request.param)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 16, 12, 12).contiguous(memory_format=torch.channels_last)


@pytest.fixture
def recalls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """Whether each call of a block was recalled."""
    calls: list[bool] = []
    recall = _recall.recall

    def counted(*args: Any) -> Tensor | None:
        out = recall(*args)
        calls.append(out is not None)
        return out

    monkeypatch.setattr(_recall, "recall", counted)
    yield calls


def warm(block: nn.Module, x: Tensor) -> Tensor:
    """The output, once the block is remembered."""
    with torch.no_grad():
        for _ in range(2):
            out: Tensor = block(x)
    return out


def test_the_second_call_is_recalled(block: nn.Module, x: Tensor, recalls: list[bool]) -> None:
    first = block.eval()(x.requires_grad_(False))
    with torch.inference_mode():
        outs = [block(x) for _ in range(3)]
    assert recalls[-2:] == [True, True]
    for out in outs:
        assert_same_bits(out.clone(), first.detach(), "recalled")


def test_other_inputs_are_other_notes(block: nn.Module, x: Tensor, recalls: list[bool]) -> None:
    warm(block, x)
    with torch.no_grad():
        for other in (x[:1], x[:, :, :10], x.contiguous()):
            assert_same_bits(block(other), copy.deepcopy(block)(other), str(tuple(other.shape)))
        block(x)
    assert recalls[-1]


def replaced_weight(block: Any) -> None:
    block.conv1.weight = nn.Parameter(torch.randn_like(block.conv1.weight))


def changed_weight(block: Any) -> None:
    with torch.no_grad():
        block.conv2.weight.mul_(2)


def changed_statistics(block: Any) -> None:
    block.bn1.running_mean.add_(1)


def changed_eps(block: Any) -> None:
    block.bn2.eps = 0.5


def replaced_module(block: Any) -> None:
    block.bn1 = copy.deepcopy(block.bn1)
    block.bn1.weight.data.mul_(3)


def training_norm(block: Any) -> None:
    block.bn1.train()


def hooked(block: Any) -> None:
    block.conv1.register_forward_hook(lambda module, args, out: out * 2)


def patched_forward(block: Any) -> None:
    block.relu.forward = lambda x: x.clamp(0, 0.5)


def another_class(block: Any) -> None:
    class Doubled(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    block.conv1.__class__ = Doubled


def behind_autograd(block: Any) -> None:
    block.conv1.weight.data.mul_(2)
    fusedres.refresh(block)


CHANGES = (
    replaced_weight, changed_weight, changed_statistics, changed_eps, replaced_module, training_norm, hooked,
    patched_forward, another_class, behind_autograd,
)  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_is_seen_at_once(
    block: nn.Module, x: Tensor, recalls: list[bool], change: Callable[[Any], None]
) -> None:
    before = warm(block, x)
    assert recalls[-1]
    change(block)
    fresh = copy.deepcopy(block)  # of which nothing is remembered
    with torch.no_grad():
        after, expected = block(x), fresh(x)
    assert not recalls[-2]
    assert not torch.equal(after, before)
    assert_same_bits(after, expected, change.__name__)


def test_a_context_is_seen_at_once(block: nn.Module, x: Tensor, recalls: list[bool]) -> None:
    warm(block, x)
    with torch.no_grad():
        with fusedres.backend("reference"):
            block(x)
        assert not recalls[-1]
        seen = len(recalls)
        with fusedres.composition("plain"):
            block(x)
        assert not any(recalls[seen:])
        with torch.autocast("cpu", torch.bfloat16):
            assert block(x).dtype == torch.bfloat16
        block(x)
    assert recalls[-1]
    assert block(x).requires_grad  # with gradients wanted, the usual way


def test_functional_call_swaps_parameters(block: nn.Module, x: Tensor) -> None:
    before = warm(block, x)
    swapped = {name: torch.zeros_like(p) for name, p in block.named_parameters()}
    with torch.no_grad():
        assert not torch.equal(torch.func.functional_call(block, swapped, (x,)), before)
        assert_same_bits(block(x), before, "after the swap")


def test_nothing_keeps_a_block_alive(x: Tensor) -> None:
    block = made("basic")
    warm(block, x)
    gone = weakref.ref(block)
    del block
    gc.collect()
    assert gone() is None


def test_copies_and_pickles_have_no_notes(block: nn.Module, x: Tensor) -> None:
    before = warm(block, x)
    stored = io.BytesIO()
    torch.save(block, stored)
    stored.seek(0)
    for other in (copy.deepcopy(block), copy.copy(block), torch.load(stored, weights_only=False)):
        with torch.no_grad():
            other.bn1.running_var.mul_(4)
            assert not torch.equal(other(x), before)
            other.bn1.running_var.div_(4)
            assert_same_bits(other(x), before, "as it was")
