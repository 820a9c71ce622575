"""A model's blocks remembered as one call: used while nothing has changed, and never after something has."""

from __future__ import annotations

import copy
import gc
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

if extension_missing("_C") is not None or not engine.runs(engine.Algorithm.WINOGRAD_F32):
    pytest.skip("nothing prepares whole blocks here", allow_module_level=True)

SMALL = {"num_classes": 7}


def made(block: type[BasicBlock | Bottleneck] = Bottleneck) -> Any:
    """A model with a block of each kind in every stage, and statistics that matter."""
    torch.manual_seed(0)
    model = fusedres.FusedResNet(block, [2, 1, 2, 1], **SMALL).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.5)
    return model


@pytest.fixture(scope="module")
def original() -> Any:
    return made()


@pytest.fixture
def model(original: Any) -> Any:
    return copy.deepcopy(original)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 3, 40, 40)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many blocks (and stems) went through each op call."""
    counts: list[int] = []

    def counting(cls: Any) -> None:
        call = cls.__call__

        def counted(self: Any, x: Tensor) -> Tensor:
            counts.append(len(getattr(self, "convs", ())))
            out: Tensor = call(self, x)
            return out

        monkeypatch.setattr(cls, "__call__", counted)

    from fusedres.backends.cpu.blocks import EngineBlocks, EngineStem

    counting(EngineBlocks)
    counting(EngineStem)
    yield counts


def warm(model: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        for _ in range(2):
            out: Tensor = model(x)
    return out


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_second_call_is_one(
    block: type[BasicBlock | Bottleneck], dtype: torch.dtype, x: Tensor, calls: list[int]
) -> None:
    model = made(block).to(dtype)
    with torch.inference_mode():
        first = model(x.to(dtype))
        assert calls == [0, 1, 1, 1, 1, 1, 1], "the stem, then block by block"
        again = model(x.to(dtype))
    assert calls[7:] == [0, 6], "the stem, then all at once"
    assert_same_bits(again.clone(), first.clone(), "at once")


def test_every_thread_count_and_size_has_its_own(model: Any, x: Tensor, calls: list[int]) -> None:
    whole = warm(model, x)
    threads = torch.get_num_threads()
    with torch.no_grad():
        for other in (x[:1], x[:, :, :33], x.contiguous(memory_format=torch.channels_last)):
            fresh = copy.deepcopy(model)
            assert_same_bits(model(other), fresh(other), str(tuple(other.shape)))
        torch.set_num_threads(threads % 2 + 1)
        try:
            assert_same_bits(model(x), whole, "other threads")
        finally:
            torch.set_num_threads(threads)
        calls.clear()
        model(x)
    assert calls == [0, 6]


def replaced_weight(model: Any) -> None:
    block = model.layer3[1]
    block.conv1.weight = nn.Parameter(torch.randn_like(block.conv1.weight))


def changed_weight(model: Any) -> None:
    with torch.no_grad():
        model.layer4[0].conv2.weight.mul_(2)


def changed_stem(model: Any) -> None:
    with torch.no_grad():
        model.conv1.weight.mul_(-1)


def changed_statistics(model: Any) -> None:
    model.layer1[0].bn1.running_mean.add_(1)


def changed_eps(model: Any) -> None:
    model.layer2[0].bn2.eps = 0.5


def replaced_block(model: Any) -> None:
    model.layer1[1] = copy.deepcopy(model.layer1[0])
    model.layer1[1].downsample = None
    model.layer1[1].conv1 = nn.Conv2d(256, 64, 1, bias=False)


def replaced_stage(model: Any) -> None:
    model.layer3 = nn.Sequential(model.layer3[0])


def one_block_more(model: Any) -> None:
    model.layer3.append(copy.deepcopy(model.layer3[1]))


def training_norm(model: Any) -> None:
    model.layer4[0].bn3.train()


def hooked_stage(model: Any) -> None:
    model.layer2.register_forward_hook(lambda module, args, out: out * 2)


def hooked_block(model: Any) -> None:
    model.layer2[0].register_forward_pre_hook(lambda module, args: (args[0] * 2,))


def hooked_convolution(model: Any) -> None:
    model.layer4[0].conv1.register_forward_hook(lambda module, args, out: out * 2)


def hooked_anywhere(model: Any) -> None:
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, args, out: out * 2 if isinstance(module, nn.Sequential) else None
    )
    model.handles = [handle]


def patched_forward(model: Any) -> None:
    block = model.layer1[1]
    block.forward = lambda x: x * 2


def another_class(model: Any) -> None:
    class Doubled(type(model.layer3)):  # type: ignore[misc]
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)  # type: ignore[no-any-return]

    model.layer3.__class__ = Doubled


def behind_autograd(model: Any) -> None:
    model.layer3[0].conv1.weight.data.mul_(2)
    fusedres.refresh(model)


def loaded(model: Any) -> None:
    torch.manual_seed(1)
    model.load_state_dict(fusedres.FusedResNet(Bottleneck, [2, 1, 2, 1], **SMALL).state_dict())


CHANGES = (
    replaced_weight, changed_weight, changed_stem, changed_statistics, changed_eps, replaced_block,
    replaced_stage, one_block_more, training_norm, hooked_stage, hooked_block, hooked_convolution,
    hooked_anywhere, patched_forward, another_class, behind_autograd, loaded,
)  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_is_seen_at_once(model: Any, x: Tensor, change: Callable[[Any], None]) -> None:
    before = warm(model, x)
    change(model)
    try:
        with torch.no_grad(), fusedres.backend("cpu"):  # a switch that no note was made under
            norms = copy.deepcopy([m for m in model.modules() if isinstance(m, nn.BatchNorm2d)])
            expected = model(x)
        for norm, was in zip(
            [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)], norms, strict=True
        ):
            norm.load_state_dict(was.state_dict())  # one that trains has moved
        with torch.no_grad():
            after = model(x)
    finally:
        for handle in model.__dict__.get("handles", ()):
            handle.remove()
    assert not torch.equal(after, before)
    assert_same_bits(after, expected, change.__name__)


def test_a_patched_class_is_seen(model: Any, x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    before = warm(model, x)
    cls = type(model.layer1[0])
    forward = cls.forward
    monkeypatch.setattr(cls, "forward", lambda self, x: 2 * forward(self, x))
    with torch.no_grad():
        assert not torch.equal(model(x), before)


def test_contexts_and_modes_are_seen(model: Any, x: Tensor, calls: list[int]) -> None:
    before = warm(model, x)
    calls.clear()
    with torch.no_grad():
        with fusedres.backend("reference"):
            model(x)
        assert calls == []
        with fusedres.composition("plain"):
            model(x)
        assert calls == []
        with torch.autocast("cpu", torch.bfloat16):
            assert model(x).dtype == torch.bfloat16
        assert 6 not in calls
        calls.clear()
        assert_same_bits(model(x), before, "as before")
    assert calls == [0, 6]
    assert model(x).requires_grad
    model.train()(x)
    model.eval()
    with torch.no_grad():
        assert not torch.equal(model(x), before), "the statistics have moved"


def test_functional_call_swaps_parameters(model: Any, x: Tensor) -> None:
    before = warm(model, x)
    swapped = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    with torch.no_grad():
        assert not torch.equal(torch.func.functional_call(model, swapped, (x,)), before)
        assert_same_bits(model(x), before, "after the swap")


def test_a_foreign_part_goes_block_by_block(model: Any, x: Tensor, calls: list[int]) -> None:
    model.layer2.append(nn.Dropout())
    warm(model, x)
    calls.clear()
    with torch.no_grad():
        model(x)
    assert calls == [0, 1, 1, 1, 1, 1, 1]


def test_nothing_keeps_a_model_alive(x: Tensor) -> None:
    gc.collect()
    notes = len(_recall._NOTES)
    model = made()
    warm(model, x)
    assert len(_recall._NOTES) == notes + 7
    gone = weakref.ref(model.layer1[0])
    del model
    gc.collect()
    assert gone() is None
    assert len(_recall._NOTES) == notes
