"""Fused blocks against torchvision's, and every reason for which a block must run torchvision's forward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torchvision.models.resnet import BasicBlock, Bottleneck, conv1x1
from torchvision.ops.misc import FrozenBatchNorm2d

import fusedres
from fusedres import FusedBasicBlock, FusedBottleneck
from tests._fused import assert_same_in_float64, assert_two_x_together, away_from_kinks, fused_calls, results
from tests._parity import assert_same_bits

COMPOSITIONS = ["pointwise", "stats", "mainloop"]


def projection(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(conv1x1(inputs, outputs, stride), nn.BatchNorm2d(outputs))


BLOCKS: dict[str, Callable[[], nn.Module]] = {
    "basic": lambda: BasicBlock(12, 12),
    "basic-down": lambda: BasicBlock(12, 20, 2, projection(12, 20, 2)),
    "basic-widen": lambda: BasicBlock(12, 20, 1, projection(12, 20, 1)),
    "bottleneck": lambda: Bottleneck(24, 6),
    "bottleneck-down": lambda: Bottleneck(12, 6, 2, projection(12, 24, 2)),
    "bottleneck-dilated": lambda: Bottleneck(24, 6, dilation=2),
    "bottleneck-groups": lambda: Bottleneck(24, 6, groups=3, base_width=64),
}
SHAPES = {"odd": (2, 7, 9), "one-image": (1, 8, 8), "one-pixel": (3, 1, 1)}


def batch(block: nn.Module, shape: tuple[int, int, int]) -> Tensor:
    n, h, w = shape
    x = torch.randn(n, block.conv1.in_channels, h, w)
    return x.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("composition", COMPOSITIONS)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("make", BLOCKS.values(), ids=BLOCKS)
def test_block_in_float64(
    make: Callable[[], nn.Module], shape: tuple[int, int, int], training: bool, composition: str
) -> None:
    plain = make().train(training)
    x = batch(plain, shape)
    weights = torch.randn_like(plain(x))
    ours = fusedres.fuse(plain)
    ours.composition = composition
    with fused_calls() as calls:
        got = results(ours, x, weights, torch.float64)
    assert len(calls) == 1
    ref, coarse = (results(plain, x, weights, dtype) for dtype in (torch.float64, torch.float32))
    assert_same_in_float64(got, ref, coarse, "block")


@pytest.mark.parametrize("composition", COMPOSITIONS)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("make", BLOCKS.values(), ids=BLOCKS)
def test_block_in_fp32(
    make: Callable[[], nn.Module], training: bool, composition: str, backend: str, device: torch.device
) -> None:
    plain = make().train(training)
    x = away_from_kinks(plain, (3, plain.conv1.in_channels, 9, 7)).to(device)
    plain = plain.to(device)
    weights = torch.randn_like(plain(x))
    ours = fusedres.fuse(plain)
    ours.composition = composition
    with fusedres.backend(backend):
        got = results(ours, x, weights, torch.float32)
    ref, yardstick = (results(plain, x, weights, dtype) for dtype in (torch.float64, torch.float32))
    assert_two_x_together(got, ref, yardstick, f"block on {backend}")


def test_frozen_batch_norm_with_its_own_eps() -> None:
    plain = Bottleneck(24, 6, norm_layer=lambda width: FrozenBatchNorm2d(width, eps=0.3))
    for buffer in plain.buffers():
        nn.init.uniform_(buffer, 0.5, 1.5)
    ours = fusedres.fuse(plain.train())
    x = batch(plain, (2, 6, 6))
    weights = torch.randn(2, 24, 6, 6)
    with fused_calls() as calls:
        got = results(ours, x, weights, torch.float64)
    assert calls == ["bottleneck"]
    ref, coarse = (results(plain, x, weights, dtype) for dtype in (torch.float64, torch.float32))
    assert_same_in_float64(got, ref, coarse, "frozen bottleneck")


@pytest.mark.parametrize("stride", [(2, 2), (1, 2)])
def test_stride_is_read_from_the_convolutions(stride: tuple[int, int]) -> None:
    """SSD's backbones change it after construction, and leave ``block.stride`` as it was."""
    plain = BasicBlock(8, 16, 1, projection(8, 16, 1)).eval()
    plain.conv1.stride = plain.downsample[0].stride = stride
    x = torch.randn(2, 8, 9, 9)
    with fused_calls() as calls:
        out = fusedres.fuse(plain)(x)
    assert calls == ["basic_block"]
    torch.testing.assert_close(out, plain(x))


class OwnReLU(nn.ReLU):
    pass


class Doubling(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight * 2


def _conv2(**kwargs: Any) -> Callable[[nn.Module], None]:
    def change(block: nn.Module) -> None:
        block.conv2 = nn.Conv2d(8, 8, **{"kernel_size": 3, "padding": 1, "bias": False, **kwargs})

    return change


def _attribute(path: str, value: object) -> Callable[[nn.Module], None]:
    owner, _, name = path.rpartition(".")

    def change(block: nn.Module) -> None:
        setattr(block.get_submodule(owner), name, value)

    return change


def _patched_forward(block: nn.Module) -> None:
    forward = block.conv1.forward
    block.conv1.forward = lambda x: forward(x) * 2


UNFUSABLE: dict[str, Callable[[nn.Module], Any]] = {
    "bias": _conv2(bias=True),
    "padding-mode": _conv2(padding_mode="reflect"),
    "padding-same": _conv2(padding="same"),
    "kernel": _conv2(kernel_size=1, padding=0),
    "dilation": _conv2(dilation=2, padding=2),
    "groups": _conv2(groups=2),
    "group-norm": _attribute("bn1", nn.GroupNorm(4, 8)),
    "sync-norm": _attribute("bn1", nn.SyncBatchNorm(8)),
    "no-norm": _attribute("bn2", nn.Identity()),
    "own-relu": _attribute("relu", OwnReLU()),
    "gelu": _attribute("relu", nn.GELU()),
    "mixed-states": lambda block: block.bn2.train(not block.bn2.training),
    "downsample-pool": _attribute("downsample", nn.AvgPool2d(1)),
    "downsample-three": _attribute("downsample", nn.Sequential(*projection(8, 8, 1), nn.Identity())),
    "downsample-bias": _attribute("downsample", nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8))),
    "parametrised": lambda block: parametrize.register_parametrization(block.conv1, "weight", Doubling()),
    "weight-norm": lambda block: nn.utils.parametrizations.weight_norm(block.conv2),
    "pruned": lambda block: prune.random_unstructured(block.conv1, "weight", 0.5),
    "patched-forward": _patched_forward,
    "plain": _attribute("composition", "plain"),
}


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("change", UNFUSABLE.values(), ids=UNFUSABLE)
def test_what_cannot_be_fused_runs_torchvisions_forward(
    change: Callable[[nn.Module], Any], training: bool
) -> None:
    ours = FusedBasicBlock(8, 8).train(training)
    change(ours)
    x = torch.randn(2, 8, 6, 6)
    with fused_calls() as calls:
        out = ours(x)
    assert not calls
    assert_same_bits(out, BasicBlock.forward(ours, x), "an unfused block")


def test_a_block_fuses_again_once_nothing_is_in_the_way() -> None:
    block = FusedBasicBlock(8, 8)
    x = torch.randn(2, 8, 6, 6)
    block.bn2.eval()
    with fused_calls() as calls:
        block(x)
        block.train()
        block(x)
        block.composition = "plain"
        block(x)
        block.composition = None
        block(x)
    assert calls == ["basic_block"] * 2


def test_lazily_built_and_shared_parts() -> None:
    """One BatchNorm behind both convolutions: its statistics move twice, as in torchvision."""
    plain = BasicBlock(8, 8).double()
    plain.bn2 = plain.bn1
    plain.conv2 = plain.conv1
    ours = fusedres.unfuse(plain)
    ours.load_state_dict(plain.state_dict())
    ours = fusedres.fuse(ours)
    x = torch.randn(2, 8, 6, 6, dtype=torch.float64)
    before = plain.bn1.running_mean.clone()
    out = plain(x)
    expected = plain.state_dict()
    expected = {key: value.clone() for key, value in expected.items()}
    plain.bn1.reset_running_stats()
    assert torch.equal(plain.bn1.running_mean, before)
    torch.testing.assert_close(ours(x), out, rtol=1e-12, atol=1e-12)
    for key, value in ours.state_dict().items():
        torch.testing.assert_close(value, expected[key], rtol=1e-12, atol=1e-12, msg=key)


@pytest.mark.parametrize(
    "block", [FusedBasicBlock(8, 8), FusedBottleneck(32, 8)], ids=["basic", "bottleneck"]
)
def test_wrong_channels_are_refused_by_name(block: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"`conv1.weight` must have .* input channels for `x`"):
        block(torch.randn(2, 5, 6, 6))


def test_repr_names_the_fused_class() -> None:
    assert repr(FusedBottleneck(32, 8)).startswith("FusedBottleneck(")
