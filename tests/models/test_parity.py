"""Every builder against torchvision's model with the same weights: outputs, gradients, statistics."""

from __future__ import annotations

import pytest
import torch
import torchvision.models
from torch import Tensor, nn

import fusedres
from tests._fused import assert_same_in_float64, assert_two_x_together, away_from_kinks, calibrate, results
from tests._parity import assert_within_two_x
from tests.models.builders import LARGE_SLOW

MODES = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])


def images() -> tuple[Tensor, Tensor]:
    """Images of odd size (maps of 17, 9, 5, 3 and 2), and the weights of the outputs in the loss.

    channels_last for plain PyTorch too: its fp32 convolutions round differently in NCHW.
    """
    return torch.randn(2, 3, 33, 33).contiguous(memory_format=torch.channels_last), torch.randn(2, 7)


def pair(name: str, x: Tensor, training: bool, prepare=None) -> tuple[nn.Module, nn.Module]:
    """torchvision's model, and ours with the same weights."""
    plain = getattr(torchvision.models, name)(num_classes=7)
    if prepare is not None:
        prepare(plain)
    calibrate(plain, x)
    ours = getattr(fusedres, name)(num_classes=7)
    ours.load_state_dict(plain.state_dict())
    return plain.train(training), ours.train(training)


@MODES
@pytest.mark.parametrize("name", LARGE_SLOW)
def test_every_mask_and_gradient_in_float64(name: str, training: bool) -> None:
    x, weights = images()
    plain, ours = pair(name, x, training)
    assert_same_in_float64(
        results(ours, x, weights, torch.float64),
        results(plain, x, weights, torch.float64),
        results(plain, x, weights, torch.float32),
        name,
    )


@MODES
@pytest.mark.parametrize("name", LARGE_SLOW)
def test_two_x_rule_in_fp32(name: str, training: bool) -> None:
    x, weights = images()
    plain, ours = pair(name, x, training, away_from_kinks)
    assert_two_x_together(
        results(ours, x, weights, torch.float32),
        results(plain, x, weights, torch.float64),
        results(plain, x, weights, torch.float32),
        name,
    )


@pytest.mark.parametrize("composition", ["pointwise", "stats", "mainloop"])
@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d"])
def test_compositions_and_backends(name: str, composition: str, backend: str, device: torch.device) -> None:
    x, weights = (t.to(device) for t in images())
    plain, ours = pair(name, x.cpu(), True, away_from_kinks)
    plain, ours = plain.to(device), ours.to(device)
    ours.composition = composition
    with fusedres.backend(backend):
        got = results(ours, x, weights, torch.float32)
    ref = results(plain, x, weights, torch.float64)
    yardstick = results(plain, x, weights, torch.float32)
    assert_two_x_together(got, ref, yardstick, f"{name} {composition}")


@MODES
def test_bf16_autocast(training: bool, backend: str, device: torch.device) -> None:
    """Outputs alone: in bf16 ReLU's kinks are too near for any rule on gradients of a whole model."""
    x, _ = images()
    plain, ours = pair("resnet18", x, training, away_from_kinks)
    plain, ours, x = plain.to(device), ours.to(device), x.to(device)
    ref = results(plain, x, torch.ones(7, device=device), torch.float64)["out"]
    with fusedres.backend(backend), torch.autocast(device.type, torch.bfloat16):
        got, yardstick = ours(x), plain(x)
    assert_within_two_x(got, ref, yardstick, "resnet18 under autocast")
