"""The builders' contract with torchvision: names, order, initial values, arguments, weights, errors."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torchvision.models
from torch import nn
from torchvision.models import ResNet18_Weights, ResNet50_Weights
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

import fusedres
from fusedres import FusedBasicBlock, FusedBottleneck, FusedResNet
from tests._parity import assert_same_bits
from tests.models.builders import ALL, LARGE_SLOW

OPTIONS = [
    {"num_classes": 5},
    {"zero_init_residual": True},
    {"norm_layer": partial(nn.BatchNorm2d, eps=1e-3, momentum=None)},
    {"norm_layer": partial(nn.GroupNorm, 8)},
    {"norm_layer": partial(nn.BatchNorm2d, track_running_stats=False)},
]
BOTTLENECK_OPTIONS = [
    {"replace_stride_with_dilation": [False, True, True]},
    {"groups": 2, "width_per_group": 32},
]


def assert_same_state(ours: nn.Module, plain: nn.Module) -> None:
    mine, theirs = ours.state_dict(), plain.state_dict()
    assert list(mine) == list(theirs)
    for key in theirs:
        assert_same_bits(mine[key], theirs[key], key)


@pytest.mark.parametrize("name", ALL)
def test_names_order_and_shapes(name: str) -> None:
    with torch.device("meta"):
        plain, ours = getattr(torchvision.models, name)(), getattr(fusedres, name)()
    assert isinstance(ours, FusedResNet)
    assert [(k, v.shape, v.dtype) for k, v in ours.state_dict().items()] == [
        (k, v.shape, v.dtype) for k, v in plain.state_dict().items()
    ]
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in plain.named_parameters()]
    assert [n for n, _ in ours.named_modules()] == [n for n, _ in plain.named_modules()]


@pytest.mark.parametrize("name", LARGE_SLOW)
def test_one_seed_gives_the_same_initial_bits(name: str) -> None:
    torch.manual_seed(7)
    plain = getattr(torchvision.models, name)()
    torch.manual_seed(7)
    ours = getattr(fusedres, name)()
    assert_same_state(ours, plain)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: next(iter(o)))
def test_options_of_basic_blocks(options: dict[str, object]) -> None:
    torch.manual_seed(7)
    plain = torchvision.models.resnet18(**options)
    torch.manual_seed(7)
    assert_same_state(fusedres.resnet18(**options), plain)


@pytest.mark.parametrize("options", BOTTLENECK_OPTIONS, ids=lambda o: next(iter(o)))
def test_options_of_bottlenecks(options: dict[str, object]) -> None:
    with torch.device("meta"):
        plain, ours = torchvision.models.resnet50(**options), fusedres.resnet50(**options)
    assert repr(ours).replace("Fused", "") == repr(plain)


@pytest.mark.parametrize("name", ALL)
def test_signatures_are_torchvisions(name: str) -> None:
    plain, ours = getattr(torchvision.models, name), getattr(fusedres, name)
    assert inspect.signature(ours) == inspect.signature(plain)
    assert ours.__doc__ == plain.__doc__
    assert ours.__name__ == ours.__qualname__ == name
    assert ours.__module__ == "fusedres.models.resnet"
    assert inspect.signature(FusedResNet) == inspect.signature(ResNet)


@pytest.mark.parametrize(
    ("block", "fused"),
    [
        (BasicBlock, FusedBasicBlock),
        (Bottleneck, FusedBottleneck),
        (FusedBasicBlock, FusedBasicBlock),
        (FusedBottleneck, FusedBottleneck),
    ],
)
def test_constructor_takes_torchvisions_blocks_and_ours(block: type, fused: type) -> None:
    model = FusedResNet(block, [1, 1, 1, 1], num_classes=2)
    assert type(model.layer1[0]) is type(model.layer4[0]) is fused


def test_block_constructors() -> None:
    torch.manual_seed(3)
    plain = Bottleneck(64, 16, dilation=2, groups=2)
    torch.manual_seed(3)
    ours = FusedBottleneck(64, 16, dilation=2, groups=2)
    assert_same_state(ours, plain)
    assert (FusedBasicBlock.expansion, FusedBottleneck.expansion) == (1, 4)
    with pytest.raises(ValueError, match="BasicBlock only supports groups=1"):
        FusedBasicBlock(64, 64, groups=2)
    with pytest.raises(NotImplementedError, match="Dilation > 1"):
        FusedBasicBlock(64, 64, dilation=2)


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """Stands in for the network: what torchvision's enum downloads is this state dict."""
    state = torchvision.models.resnet18().state_dict()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *args, **kwargs: state)
    return state


@pytest.mark.parametrize("weights", [ResNet18_Weights.IMAGENET1K_V1, "IMAGENET1K_V1", "DEFAULT"])
def test_weights_by_enum_and_by_name(weights: object, published: dict[str, torch.Tensor]) -> None:
    assert_same_bits(fusedres.resnet18(weights=weights).fc.weight, published["fc.weight"], "fc.weight")


@pytest.mark.filterwarnings("ignore:Arguments other than a weight enum")
@pytest.mark.parametrize(
    "build", [lambda: fusedres.resnet18(pretrained=True), lambda: fusedres.resnet18(True)]
)
def test_legacy_pretrained_warns_as_torchvision(
    build: Callable[[], nn.Module], published: dict[str, torch.Tensor]
) -> None:
    with pytest.warns(UserWarning, match="deprecated since 0.13"):
        model = build()
    assert_same_bits(model.fc.weight, published["fc.weight"], "fc.weight")


@pytest.mark.parametrize("weights", ["NO_SUCH", ResNet50_Weights.IMAGENET1K_V1])
def test_wrong_weights_are_refused_as_torchvision_does(weights: object) -> None:
    errors = []
    for library in (torchvision.models, fusedres):
        with pytest.raises((KeyError, TypeError)) as error:
            library.resnet18(weights=weights)
        errors.append((error.type, str(error.value)))
    assert errors[0] == errors[1]


def test_weights_fix_the_number_of_classes(published: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ValueError, match="num_classes"):
        fusedres.resnet18(weights="DEFAULT", num_classes=10)


@pytest.mark.parametrize("plan", [[True], [False, False, False, True]])
def test_wrong_dilation_plan_is_refused(plan: list[bool]) -> None:
    with pytest.raises(ValueError, match="replace_stride_with_dilation"):
        fusedres.resnet50(replace_stride_with_dilation=plan)
