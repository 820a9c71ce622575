"""A worker's task: which cell, with the files that the parent laid out for it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.models import inputs
from benchmarks.models.cells import Cell


class Unsupported(RuntimeError):
    """A peer that is installed and cannot run this cell; the message says why."""


class Program(NamedTuple):
    """What a peer made of a cell.

    ``step`` is what is timed. ``outputs`` gives what parity compares, the logits at least, and is called
    before any ``step``.
    ``forward`` (training only) gives the loss, for counting what it saves. ``model`` holds the parameters.
    """

    step: Callable[[], object]
    outputs: Callable[[], dict[str, Any]]
    forward: Callable[[], Tensor] | None = None
    model: nn.Module | None = None


@dataclass(frozen=True)
class Job:
    """One cell with its folder of inputs."""

    cell: Cell
    folder: Path
    #: Whether ours is tuned on this device before it is judged and timed.
    tune: bool = False

    @property
    def images_path(self) -> Path:
        return self.folder / f"images-{self.cell.batch}.pt"

    @property
    def state_path(self) -> Path:
        return self.folder / f"{self.cell.model}.pt"

    def outputs_path(self, peer: str) -> Path:
        return self.folder / f"{self.cell}-{peer}.pt"

    def lay_out(self) -> None:
        """In the parent: write the inputs that are not there yet."""
        if not self.images_path.exists():
            torch.save(inputs.images(self.cell.model, self.cell.batch), self.images_path)
        if not self.state_path.exists():
            torch.save(inputs.state(self.cell.model), self.state_path)

    def images(self) -> Tensor:
        """(batch, 3, 224, 224) fp32, contiguous."""
        images: Tensor = _load(self.images_path)
        return images

    def labels(self) -> Tensor:
        return inputs.labels(self.cell.batch)

    def load_into(self, model: nn.Module) -> nn.Module:
        model.load_state_dict(_load(self.state_path))
        return model

    def onnx_path(self) -> Path:
        """The ONNX file of the cell's model at its batch size, exported once in a run.

        The older exporter: it folds BatchNorm into convolutions, which both ONNX peers then start from.
        """
        path = self.folder / f"{self.cell.model}-b{self.cell.batch}.onnx"
        if not path.exists():
            import torchvision

            model = self.load_into(torchvision.models.get_model(self.cell.model, weights=None)).eval()
            partial = path.with_suffix(f".{os.getpid()}")  # two peers may export at once
            torch.onnx.export(model, (self.images(),), str(partial), dynamo=False, opset_version=17)
            partial.rename(path)
        return path


def _load(path: Path) -> Any:
    return torch.load(path, weights_only=True)
