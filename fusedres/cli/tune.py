"""``fusedres tune``: measure what runs each block of a ResNet fastest here, and keep it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Annotated

import torch
import typer
from torch import Tensor, nn

import fusedres
from fusedres._settings import PRECISION
from fusedres.cli.console import check_choice, out, pick_device, refusals, user_errors
from fusedres.cli.networks import DTYPES
from fusedres.cli.weights import MODELS

MODEL_HELP = f"One of {', '.join(MODELS)}."
PRECISION_HELP = "default or fast, as fusedres.precision (default: FUSEDRES_PRECISION's)"


@dataclass(frozen=True)
class Subject:
    """A model on its device with a batch, in the dtype and the mode asked for."""

    model: nn.Module
    images: Tensor
    train: bool
    dtype: torch.dtype

    @contextmanager
    def as_it_runs(self) -> Iterator[None]:
        """Autocast, where training is in bf16; what the model refuses is the user's to put right."""
        autocast = self.train and self.dtype != torch.float32
        with refusals(), torch.autocast(self.images.device.type, self.dtype, enabled=autocast):
            yield


def subject(model: str, batch: int, dtype: str, train: bool, size: int, device: torch.device) -> Subject:
    """A model with its initial weights and a batch of noise: neither changes how long a block takes."""
    check_choice("--model", model, MODELS)
    check_choice("--dtype", dtype, tuple(DTYPES))
    chosen = DTYPES[dtype]
    build: Callable[..., nn.Module] = getattr(fusedres, model)
    own = torch.float32 if train else chosen
    made = build(weights=None).to(device, own).to(memory_format=torch.channels_last).train(train)
    images = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))
    return Subject(made, images.to(device, own, memory_format=torch.channels_last), train, chosen)


def tune(
    model: Annotated[str, typer.Option(help=MODEL_HELP)] = "resnet50",
    batch: Annotated[int, typer.Option(min=1, help="Images a batch.")] = 16,
    dtype: Annotated[str, typer.Option(help="fp32 or bf16 (in training: autocast).")] = "fp32",
    train: Annotated[bool, typer.Option("--train", help="The training step in place of inference.")] = False,
    size: Annotated[int, typer.Option(min=32, help="Side of an image.")] = 224,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads (default: torch's)")] = None,
    budget: Annotated[
        float | None, typer.Option(min=1.0, help="Seconds after which no block is begun.")
    ] = None,
    precision: Annotated[str | None, typer.Option(help=PRECISION_HELP)] = None,
) -> None:
    """Time what can run each block on this device, keep the fastest, and say what was chosen and why."""
    with user_errors(), cpu_threads(threads), at_precision(precision):
        chosen = subject(model, batch, dtype, train, size, pick_device(device))
        with chosen.as_it_runs():
            report = fusedres.tune(chosen.model, chosen.images, train=train, budget_s=budget, table=False)
    report.show(out())


def at_precision(name: str | None) -> AbstractContextManager[None]:
    """``fusedres.precision(name)``; ``None`` leaves it."""
    if name is None:
        return nullcontext()
    check_choice("--precision", name, PRECISION.choices)
    return fusedres.precision(name)


@contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """torch's CPU threads for a while; ``None`` leaves them."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
