"""Whole models in one process, ours against eager torchvision; ``python -m benchmarks`` has the others."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import get_model

import fusedres
from benchmarks.conftest import Contest
from benchmarks.models.steps import TrainingStep, inference
from fusedres.cli.parity import two_times_rule
from fusedres.cli.training import Step, judge, moved_images

#: Operations of one 224 × 224 image's forward, twice the multiply-adds that torchvision's weights list.
FLOPS = {"resnet18": 3.628e9, "resnet50": 8.178e9}


@pytest.fixture(params=FLOPS)
def name(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture
def images(batch: int, device: torch.device) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(batch, 3, 224, 224, device=device).contiguous(memory_format=torch.channels_last)


@pytest.fixture
def trio(name: str, device: torch.device) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Ours, torchvision's and torchvision's for float64, with the same seeded weights."""
    torch.manual_seed(0)
    plain, exact, ours = get_model(name), get_model(name), getattr(fusedres, name)()
    for model in (ours, exact):
        model.load_state_dict(plain.state_dict())
    return (
        ours.to(device).to(memory_format=torch.channels_last),
        plain.to(device).to(memory_format=torch.channels_last),
        exact.to(device),
    )


def bench_inference(
    name: str,
    trio: tuple[nn.Module, ...],
    dtype: torch.dtype,
    images: Tensor,
    contest: Contest,
) -> None:
    ours, plain, exact = (model.eval().to(dtype) for model in trio)
    images = images.to(dtype)
    programs = inference(ours, images), inference(plain, images), inference(exact.double(), images.double())
    parity = two_times_rule("logits", *(program.outputs()["logits"] for program in programs))
    assert parity.passed, parity
    contest(programs[0].step, programs[1].step, moved=0, flops=int(FLOPS[name] * images.shape[0]))


def bench_training_step(
    name: str,
    trio: tuple[nn.Module, ...],
    dtype: torch.dtype,
    images: Tensor,
    contest: Contest,
) -> None:
    """bf16 is autocast. Forward and backward are three convolutions a layer."""
    labels = torch.arange(images.shape[0], device=images.device)
    ours, plain = (TrainingStep(model.train(), images, labels, dtype) for model in trio[:2])
    wide, exact = images.double(), trio[2].train().double()
    truth, moved = (TrainingStep(exact, x, labels, torch.float64) for x in (wide, moved_images(wide)))
    for parity in judge(*(Step(**step.outputs()) for step in (ours, plain, truth, moved))):
        assert parity.passed, parity
    contest(ours.step, plain.step, moved=0, flops=int(3 * FLOPS[name] * images.shape[0]))
