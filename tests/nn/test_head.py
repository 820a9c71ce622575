"""avgpool and fc as one op: which modules it stands for, and its numbers in a whole model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

import fusedres
from fusedres._build import extension_missing
from fusedres.backends.cpu.blocks import MOST_HEAD_IMAGES, EngineHead
from fusedres.nn._module import FusedModule
from fusedres.nn.head import run_head
from tests._parity import assert_same_bits, assert_within_two_x

pytestmark = pytest.mark.skipif(extension_missing("_C") is not None, reason=str(extension_missing("_C")))


class Owner(FusedModule):
    """A network that is nothing but its head."""

    def __init__(self, channels: int = 24, classes: int = 10) -> None:
        super().__init__()
        self.avgpool: Any = nn.AdaptiveAvgPool2d((1, 1))
        self.fc: Any = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return run_head(self, self.avgpool, self.fc, x)

    def plain(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return out


@pytest.fixture
def owner() -> Owner:
    torch.manual_seed(0)
    return Owner().eval()


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """One entry a call of the op."""
    calls: list[bool] = []
    run = EngineHead.__call__

    def counted(self: EngineHead, x: Tensor) -> Tensor:
        calls.append(True)
        return run(self, x)

    monkeypatch.setattr(EngineHead, "__call__", counted)
    return calls


def features(n: int = 2, channels: int = 24) -> Tensor:
    return torch.randn(n, channels, 5, 4).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("channels_last", [True, False])
def test_within_the_rule_and_the_same_when_recalled(
    owner: Owner, fused: list[bool], dtype: torch.dtype, bias: bool, channels_last: bool
) -> None:
    owner.fc = nn.Linear(24, 10, bias=bias)
    owner, x = owner.to(dtype), features().to(dtype)
    x = x if channels_last else x.contiguous()
    with torch.no_grad():
        first, second, plain = owner(x), owner(x), owner.plain(x)
        exact = owner.double().plain(x.double())
    assert len(fused) == 2
    assert_within_two_x(first, exact, plain, "head")
    assert_same_bits(second, first, "recalled")


class Scaled(nn.Parameter):
    """A parameter that does its own arithmetic, as quantised ones do."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = super().__torch_function__(func, types, args, kwargs or {})
        return 2 * out if func is nn.functional.linear else out


def subclass(owner: Owner) -> None:
    owner.fc.weight = Scaled(owner.fc.weight.detach())


def other_size(owner: Owner) -> None:
    owner.avgpool, owner.fc = nn.AdaptiveAvgPool2d((1, 2)), nn.Linear(48, 10)


def hooked(owner: Owner) -> None:
    owner.fc.register_forward_hook(lambda module, args, out: 2 * out)


def subclassed(owner: Owner) -> None:
    owner.fc.__class__ = type("Doubled", (nn.Linear,), {"forward": lambda s, x: 2 * nn.Linear.forward(s, x)})


def patched(owner: Owner) -> None:
    owner.avgpool.forward = lambda x: x.amax((2, 3), keepdim=True)


def sparse(owner: Owner) -> None:
    owner.fc.weight = nn.Parameter(owner.fc.weight.detach().to_sparse_csr())


def broadcast_bias(owner: Owner) -> None:
    owner.fc.bias = nn.Parameter(torch.ones(1))


def pruned(owner: Owner) -> None:
    prune.random_unstructured(owner.fc, "weight", 0.5)


def bias_of_its_own(owner: Owner) -> None:
    bias = owner.fc.bias.detach() + 1
    del owner.fc.bias
    owner.fc.bias = bias


def composed_plainly(owner: Owner) -> None:
    owner.composition = "plain"


@pytest.mark.parametrize("warm", [True, False], ids=["recalled before", "first"])
@pytest.mark.parametrize(
    "change",
    [
        subclass,
        sparse,
        broadcast_bias,
        other_size,
        hooked,
        subclassed,
        patched,
        pruned,
        bias_of_its_own,
        composed_plainly,
    ],
)
def test_what_is_left_to_torch(
    owner: Owner, fused: list[bool], change: Callable[[Owner], None], warm: bool
) -> None:
    x = features()
    with torch.no_grad():
        if warm:
            owner(x), owner(x)
        fused.clear()
        change(owner)
        for _ in range(2):
            assert_same_bits(owner(x), owner.plain(x), change.__name__)
    assert not fused


def test_contexts_that_are_left_to_torch(owner: Owner, fused: list[bool]) -> None:
    x = features()
    assert owner(x).requires_grad
    with torch.no_grad():
        with fusedres.backend("reference"):
            owner(x)
        with fusedres.composition("plain"):
            owner(x)
        with torch.autocast("cpu", torch.bfloat16):
            assert owner(x).dtype == torch.bfloat16
        owner(features(MOST_HEAD_IMAGES + 1))
        owner(features(0))
    assert not fused


def test_what_does_not_fit_is_refused_by_torch(owner: Owner, fused: list[bool]) -> None:
    with torch.no_grad():
        with pytest.raises(RuntimeError, match="mat1 and mat2"):
            owner(features(channels=25))
        with pytest.raises(RuntimeError, match="dtype"):
            owner(features().bfloat16())
        owner.fc.bias = nn.Parameter(torch.ones(3))
        with pytest.raises(RuntimeError):
            owner(features())
    assert not fused


def test_on_the_meta_device(owner: Owner) -> None:
    with torch.no_grad():
        assert owner.to("meta")(features().to("meta")).shape == (2, 10)
