"""A model remembered as one call: used while nothing has changed, and never after something has."""

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
from fusedres.backends.cpu.blocks import MOST_HEAD_IMAGES
from tests._parity import assert_same_bits, assert_within_two_x

if extension_missing("_C") is not None or engine.tile_isa(torch.float32) == "portable":
    pytest.skip("nothing prepares whole blocks here", allow_module_level=True)

SMALL = {"num_classes": 7}
AT_ONCE, ONE_BY_ONE = [0, 6, -1], [0, 1, 1, 1, 1, 1, 1, -1]


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
    """How many blocks went through each op call; a stem's is 0, a head's -1."""
    counts: list[int] = []

    def counting(cls: Any) -> None:
        call = cls.__call__

        def counted(self: Any, x: Tensor) -> Tensor:
            counts.append(-1 if cls is EngineHead else len(getattr(self, "convs", ())))
            out: Tensor = call(self, x)
            return out

        monkeypatch.setattr(cls, "__call__", counted)

    from fusedres.backends.cpu.blocks import EngineBlocks, EngineHead, EngineStem

    for cls in (EngineStem, EngineBlocks, EngineHead):
        counting(cls)
    yield counts


def warm(model: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        for _ in range(2):
            out: Tensor = model(x)
    return out


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_first_call_is_one_already(
    block: type[BasicBlock | Bottleneck], dtype: torch.dtype, x: Tensor, calls: list[int]
) -> None:
    model = made(block).to(dtype)
    apart = copy.deepcopy(model)
    apart.layer2.append(nn.Dropout().eval())  # a foreign part
    with torch.inference_mode():
        expected = apart(x.to(dtype))
        assert calls == ONE_BY_ONE, "the stem, then block by block, then the head"
        first, again = model(x.to(dtype)), model(x.to(dtype))
    assert calls[8:] == AT_ONCE + AT_ONCE
    assert_same_bits(first.clone(), expected.clone(), "the first")
    assert_same_bits(again.clone(), expected.clone(), "the second")


class Counting(nn.Module):
    """Somebody's stage: notes whether what it was given is finite."""

    def __init__(self) -> None:
        super().__init__()
        self.finite: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.finite.append(bool(x.isfinite().all()))
        return x


@pytest.mark.parametrize("where", ["stage", "block"])
def test_nobody_sees_what_stands_in_for_values(model: Any, x: Tensor, where: str) -> None:
    """What a model would run is decided before it runs, on memory that holds no values yet."""
    counting = Counting()
    if where == "block":
        model.layer3.append(counting)
    else:
        model.layer4, model.fc = counting, nn.Linear(1024, 7)
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True)  # fills what is new with NaN
    try:
        warm(model, x)
    finally:
        torch.use_deterministic_algorithms(False)
    assert counting.finite == [True, True]


def test_training_statistics_move_once_a_call(model: Any, x: Tensor) -> None:
    model.train()
    warm(model, x)
    assert {int(m.num_batches_tracked) for m in model.modules() if isinstance(m, nn.BatchNorm2d)} == {2}


def test_what_does_not_fit_is_refused_as_ever(model: Any) -> None:
    with torch.no_grad():
        for _ in range(2):
            with pytest.raises(ValueError, match=r"stem: .*channels"):
                model(torch.randn(2, 4, 40, 40))


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
    assert calls == AT_ONCE


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


def last_stage_of_another_kind(model: Any) -> None:
    """Beside the head, which the model itself runs."""
    model.layer4 = nn.Conv2d(1024, 2048, 1, stride=2)


def first_stage_of_another_kind(model: Any) -> None:
    """Beside the stem."""
    model.layer1 = nn.Conv2d(64, 256, 1)


def stage_left_out(model: Any) -> None:
    model.layer4, model.fc = nn.Identity(), nn.Linear(1024, 7)


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
    block, forward = model.layer1[1], model.layer1[1].forward
    block.forward = lambda x: forward(x) * 2


def patched_stage(model: Any) -> None:
    stage, forward = model.layer2, model.layer2.forward
    stage.forward = lambda x: forward(x) * 2


def block_of_another_class(model: Any) -> None:
    class Doubled(type(model.layer3[0])):  # type: ignore[misc]
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)  # type: ignore[no-any-return]

    model.layer3[1].__class__ = Doubled


def called_otherwise(model: Any) -> None:
    class Doubled(type(model.layer3[0])):  # type: ignore[misc]
        def __call__(self, x: Tensor) -> Tensor:
            return 2 * super().__call__(x)  # type: ignore[no-any-return]

    model.layer3[1].__class__ = Doubled


def another_class(model: Any) -> None:
    class Doubled(type(model.layer3)):  # type: ignore[misc]
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)  # type: ignore[no-any-return]

    model.layer3.__class__ = Doubled


def changed_classifier(model: Any) -> None:
    with torch.no_grad():
        model.fc.bias.add_(1)


def replaced_classifier(model: Any) -> None:
    model.fc = nn.Linear(model.fc.in_features, 9)


def classifier_in_two(model: Any) -> None:
    model.fc = nn.Sequential(nn.Dropout(), nn.Linear(model.fc.in_features, 9)).eval()


def pruned_classifier(model: Any) -> None:
    """The same address, fewer rows."""
    model.fc.weight.data, model.fc.bias.data = model.fc.weight.data[:3], model.fc.bias.data[:3]


def hooked_classifier(model: Any) -> None:
    model.fc.register_forward_hook(lambda module, args, out: out * 2)


def hooked_pooling(model: Any) -> None:
    model.avgpool.register_forward_pre_hook(lambda module, args: (args[0] * 2,))


def other_pooling(model: Any) -> None:
    model.avgpool = nn.AdaptiveMaxPool2d(1)


def behind_autograd(model: Any) -> None:
    model.layer3[0].conv1.weight.data.mul_(2)
    fusedres.refresh(model)


def loaded(model: Any) -> None:
    torch.manual_seed(1)
    model.load_state_dict(fusedres.FusedResNet(Bottleneck, [2, 1, 2, 1], **SMALL).state_dict())


CHANGES = (
    replaced_weight, changed_weight, changed_stem, changed_statistics, changed_eps, replaced_block,
    replaced_stage, last_stage_of_another_kind, first_stage_of_another_kind, stage_left_out, one_block_more,
    training_norm, hooked_stage, hooked_block, hooked_convolution,
    hooked_anywhere, patched_forward, patched_stage, another_class, block_of_another_class, called_otherwise,
    changed_classifier, replaced_classifier, classifier_in_two, pruned_classifier, hooked_classifier,
    hooked_pooling, other_pooling, behind_autograd, loaded,
)  # fmt: skip


@pytest.mark.parametrize("warmed", [True, False], ids=["later", "first"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_is_seen(model: Any, x: Tensor, change: Callable[[Any], None], warmed: bool) -> None:
    """At once, and in every call that follows; also one that was there before the first call."""
    before = warm(copy.deepcopy(model), x) if not warmed else warm(model, x)
    change(model)
    try:
        with torch.no_grad(), fusedres.backend("cpu"):  # a switch that no note was made under
            norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
            states = [copy.deepcopy(norm.state_dict()) for norm in norms]
            expected = model(x)
        assert not torch.equal(expected, before)
        for call in range(4):
            if change is training_norm:  # it has moved its statistics
                for norm, state in zip(norms, states, strict=True):
                    norm.load_state_dict(state)
            with torch.no_grad():
                assert_same_bits(model(x), expected, f"{change.__name__}, call {call}")
    finally:
        for handle in model.__dict__.get("handles", ()):
            handle.remove()


@pytest.mark.parametrize("warmed", [True, False], ids=["later", "first"])
@pytest.mark.parametrize("patched", ["block", "sequential", "linear"])
@pytest.mark.parametrize("name", ["forward", "__call__"])
def test_a_patched_class_is_seen(
    model: Any, x: Tensor, monkeypatch: pytest.MonkeyPatch, patched: str, name: str, warmed: bool
) -> None:
    cls = {"block": type(model.layer1[0]), "sequential": nn.Sequential, "linear": nn.Linear}[patched]
    before = warm(copy.deepcopy(model), x)
    if warmed:
        warm(model, x)
    own = getattr(cls, name)
    monkeypatch.setattr(cls, name, lambda self, x: own(self, x) + 0.5 * x.mean())
    with torch.no_grad():
        first = model(x)
        assert not torch.equal(first, before)
        for _ in range(3):
            assert_same_bits(model(x), first, "every call")


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
    assert calls == AT_ONCE
    assert model(x).requires_grad
    model.train()(x)
    model.eval()
    with torch.no_grad():
        assert not torch.equal(model(x), before), "the statistics have moved"


@pytest.mark.parametrize("stage", ["layer1", "layer4"])
def test_a_stage_of_the_same_sizes_is_not_skipped(stage: str, x: Tensor) -> None:
    """What maps a block's sizes to themselves, where nothing but its absence would tell."""
    model = made(BasicBlock)
    setattr(model, stage, nn.Conv2d(64, 64, 1) if stage == "layer1" else nn.Conv2d(256, 512, 1, stride=2))
    plain = fusedres.unfuse(model)
    with torch.no_grad():
        yardstick, exact = plain(x), copy.deepcopy(plain).double()(x.double())
        for call in range(4):
            assert_within_two_x(model(x), exact, yardstick, f"call {call}")


def test_more_images_than_the_head_takes(calls: list[int]) -> None:
    """Stem and blocks are one call all the same."""
    model, x = made(), torch.randn(MOST_HEAD_IMAGES + 1, 3, 33, 33)
    whole = warm(model, x)
    calls.clear()
    with torch.no_grad():
        assert_same_bits(model(x), whole, "the third call")
    assert calls == AT_ONCE[:2]


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
    assert calls == ONE_BY_ONE


def test_nothing_keeps_a_model_alive(x: Tensor) -> None:
    model = made()
    warm(model, x)

    def register(of: Any) -> None:
        of.layer2.register_forward_hook(lambda module, args, out: of.features.append(out))

    register(model)
    model.features = []
    with torch.no_grad():
        model(x)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
