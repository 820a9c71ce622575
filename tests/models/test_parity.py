"""Every builder against torchvision's model with the same weights: outputs, gradients, statistics.

Gradients are compared in float64, where no two runs disagree about a ReLU's mask, and in fp32 block by
block (tests/nn); outputs and statistics of whole models keep the 2× rule in fp32 as well.
"""

from __future__ import annotations

import pytest
import torch
import torchvision.models
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

import fusedres
from tests._fused import Results, assert_same_in_float64, assert_two_x_together, calibrate, results
from tests._parity import assert_within_two_x
from tests.models.builders import LARGE_SLOW

MODES = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])


def images() -> Tensor:
    """Images of odd size: maps of 17, 9, 5, 3 and 2.

    channels_last for plain PyTorch too: its fp32 convolutions round differently in NCHW.
    """
    return torch.randn(2, 3, 33, 33).contiguous(memory_format=torch.channels_last)


def forward_results(outcome: Results) -> Results:
    """Output, running statistics and counters: what a forward leaves behind."""
    gradients = [name for name in outcome if name.startswith("d")]
    return {name: value for name, value in outcome.items() if name not in gradients}


def small(block: type[BasicBlock | Bottleneck], x: Tensor) -> ResNet:
    """A block a stage: every kind of block there is, at a tenth of the time."""
    model = ResNet(block, [1, 1, 2, 1], num_classes=7)
    calibrate(model, x)
    return model


@MODES
@pytest.mark.parametrize("name", LARGE_SLOW)
def test_builder(name: str, training: bool) -> None:
    x, weights = images(), torch.randn(2, 7)
    plain: nn.Module = getattr(torchvision.models, name)(num_classes=7)
    calibrate(plain, x)
    ours: nn.Module = getattr(fusedres, name)(num_classes=7)
    ours.load_state_dict(plain.state_dict())
    plain.train(training), ours.train(training)
    ref, plain32 = (results(plain, x, weights, dtype) for dtype in (torch.float64, torch.float32))
    assert_same_in_float64(results(ours, x, weights, torch.float64), ref, plain32, name)
    with torch.no_grad():
        got = {"out": ours(x), **dict(ours.named_buffers())}
    assert_two_x_together(got, forward_results(ref), forward_results(plain32), name)
    assert_within_two_x(got["out"], ref["out"], plain32["out"], f"{name}'s logits")


@MODES
@pytest.mark.parametrize("composition", ["pointwise", "stats", "mainloop"])
@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_compositions_and_backends(
    block: type[BasicBlock | Bottleneck], composition: str, training: bool, backend: str, device: torch.device
) -> None:
    x, weights = images(), torch.randn(2, 7)
    plain = small(block, x).to(device).train(training)
    x, weights = x.to(device), weights.to(device)
    ours = fusedres.fuse(plain)
    ours.composition = composition
    with fusedres.backend(backend):
        got = forward_results(results(ours, x, weights, torch.float32))
    ref, plain32 = (
        forward_results(results(plain, x, weights, dtype)) for dtype in (torch.float64, torch.float32)
    )
    assert_two_x_together(got, ref, plain32, f"{composition} on {backend}")


@MODES
@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_bf16_autocast(
    block: type[BasicBlock | Bottleneck], training: bool, backend: str, device: torch.device
) -> None:
    x = images()
    plain = small(block, x).to(device).train(training)
    x, ours = x.to(device), fusedres.fuse(plain)
    ref = results(plain, x, torch.ones(7, device=device), torch.float64)["out"]
    with torch.autocast(device.type, torch.bfloat16):
        yardstick = results(plain, x, torch.ones(7, device=device), torch.float32)
        with fusedres.backend(backend):
            got = results(ours, x, torch.ones(7, device=device), torch.float32)
    assert_within_two_x(got["out"], ref, yardstick["out"], "logits under autocast")
    assert {name: value.dtype for name, value in got.items()} == {n: v.dtype for n, v in yardstick.items()}
