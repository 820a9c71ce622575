"""Whole networks: ours, eager channels_last and torch.compile, in inference (bf16) and training (AMP)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models import get_model

import fusedres
from benchmarks.gpu_check.contest import OURS, Maker, Outcome, held
from benchmarks.models.steps import TrainingStep, inference
from fusedres.cli.networks import Contender, reference
from fusedres.cli.parity import Parity, two_times_rule
from fusedres.cli.training import judge, moved_images, run_step

BF16 = torch.bfloat16
#: Images of the parity check, whose reference is float64.
JUDGED = 8


class Network(NamedTuple):
    """A row of the report: ``task`` is "infer" (a bf16 model) or "train" (bf16 by autocast)."""

    task: str
    model: str
    batch: int
    size: int = 224

    def __str__(self) -> str:
        return f"{self.task} {self.model}, batch {self.batch}, {self.size} x {self.size}, bf16"


NETWORKS = (
    Network("infer", "resnet50", 1),
    Network("infer", "resnet50", 32),
    Network("infer", "resnet50", 256),
    Network("infer", "resnet18", 32),
    Network("train", "resnet50", 32),
    Network("train", "resnet50", 256),
    Network("train", "resnet18", 32),
)


def contest(network: Network, rounds: int, device: torch.device, *, compiled: bool = True) -> Outcome:
    """Parity on at most :data:`JUDGED` images, then the rounds, with or without torch.compile."""
    torch.manual_seed(0)
    images = torch.randn(network.batch, 3, network.size, network.size).to(device)
    images = images.contiguous(memory_format=torch.channels_last)
    plain = _calibrated(get_model(network.model, weights=None).to(device), images[:JUDGED])
    plain = plain.to(memory_format=torch.channels_last)
    ours = fusedres.fuse(copy.deepcopy(plain))
    if network.task == "infer":
        return _inference(network, plain.eval(), ours.eval(), images, rounds, compiled)
    return _training(network, plain.train(), ours.train(), images, rounds, compiled)


def _inference(
    network: Network, plain: nn.Module, ours: nn.Module, images: Tensor, rounds: int, compiled: bool
) -> Outcome:
    def parity() -> tuple[Parity, ...]:
        few = images[:JUDGED]
        exact = reference(plain, few, images.device, BF16, keep_norms=False)
        with torch.no_grad():
            truth = exact.model(exact.images)
            logits = [copy.deepcopy(model).to(BF16)(few.to(BF16)) for model in (ours, plain)]
        return (two_times_rule("logits", logits[0], logits[1], truth),)

    def step(model: nn.Module, compile_it: bool = False) -> Callable[[], object]:
        narrow = copy.deepcopy(model).to(BF16)
        ready = torch.compile(narrow) if compile_it else narrow
        return inference(ready, images.to(BF16), compiled=compile_it).step

    return _held(network, parity, step, plain, ours, images, rounds, compiled)


def _training(
    network: Network, plain: nn.Module, ours: nn.Module, images: Tensor, rounds: int, compiled: bool
) -> Outcome:
    labels = torch.arange(images.shape[0], device=images.device) % 1000

    def parity() -> tuple[Parity, ...]:
        few, known = images[:JUDGED], labels[:JUDGED]
        exact = reference(plain, few, images.device, BF16, keep_norms=True)
        truth = run_step(exact, known, torch.float64)
        moved = run_step(Contender(exact.model, moved_images(exact.images)), known, torch.float64)
        mine, theirs = (
            run_step(Contender(copy.deepcopy(model), few), known, BF16) for model in (ours, plain)
        )
        return judge(mine, theirs, truth, moved)

    def step(model: nn.Module, compile_it: bool = False) -> Callable[[], object]:
        own = copy.deepcopy(model)
        if compile_it:
            own.compile()
        return TrainingStep(own, images, labels, BF16).step

    return _held(network, parity, step, plain, ours, images, rounds, compiled)


def _held(
    network: Network,
    parity: Callable[[], tuple[Parity, ...]],
    step: Callable[..., Callable[[], object]],
    plain: nn.Module,
    ours: nn.Module,
    images: Tensor,
    rounds: int,
    compiled: bool,
) -> Outcome:
    makers: dict[str, Maker] = {
        OURS: lambda: step(ours),
        "eager, channels_last": lambda: step(plain),
    }
    if compiled:
        makers["torch.compile"] = lambda: step(plain, True)
    return held(str(network), parity, makers, rounds, images.device)


def _calibrated(model: nn.Module, images: Tensor) -> nn.Module:
    """BatchNorm's statistics of ``images``, so that no layer's values grow past what bf16 resolves."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(images)
    for norm in norms:
        norm.momentum = 0.1
    return model
