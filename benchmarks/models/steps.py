"""An inference call and a training step on a torch module, the same for every torch peer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.models.job import Program
from fusedres.cli.networks import Contender
from fusedres.cli.training import run_step


def inference(model: Callable[[Tensor], Tensor], images: Tensor, *, compiled: bool = False) -> Program:
    """A forward without gradients; Inductor freezes under ``no_grad`` alone, hence ``compiled``."""
    guard = torch.no_grad if compiled else torch.inference_mode

    def step() -> Tensor:
        with guard():
            return model(images)

    return Program(step, lambda: {"logits": step()})


class TrainingStep:
    """Forward, loss, backward and SGD's update, over one batch.

    The learning rate is so small that hundreds of steps leave the numbers where they were: values that
    drift to zero or infinity would change what is timed.
    """

    def __init__(self, model: nn.Module, images: Tensor, labels: Tensor, dtype: torch.dtype) -> None:
        self.model, self.images, self.labels, self.dtype = model, images, labels, dtype
        self.optimizer = torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9)

    def loss(self) -> Tensor:
        with torch.autocast(self.images.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            return cross_entropy(self.model(self.images), self.labels)

    def step(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.loss().backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    def outputs(self) -> dict[str, Any]:
        """Logits, gradients and running statistics of one forward and backward."""
        return asdict(run_step(Contender(self.model, self.images), self.labels, self.dtype))

    def program(self) -> Program:
        return Program(self.step, self.outputs, self.loss, self.model)
