"""What is measured: one cell is a model, a task, a dtype, a batch size and a number of threads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

Task = Literal["infer", "train", "saved"]
Precision = Literal["default", "fast"]
Neighbour = Literal["none", "busy", "pinned"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp64": torch.float64}
#: What may follow the five parts of every name, in this order, and the fields that it sets.
MARKS = {
    "fast": ("precision", "fast"),
    "busy": ("neighbour", "busy"),
    "pinned": ("neighbour", "pinned"),
}


@dataclass(frozen=True)
class Cell:
    """One row of the results.

    ``infer`` and ``train`` are timed; ``saved`` counts the bytes a training forward keeps for backward.
    In training bf16 means autocast over fp32 parameters, in inference a bf16 model. ``precision`` is
    :func:`fusedres.precision`'s, for ours alone. ``neighbour``: each visit is timed once alone and once
    beside another process that keeps a core busy, one that the system chooses or (``pinned``) the last.
    """

    task: Task
    model: str
    dtype: str
    batch: int
    threads: int
    precision: Precision = "default"
    neighbour: Neighbour = "none"

    def __str__(self) -> str:
        marks = [mark for mark, (field, value) in MARKS.items() if getattr(self, field) == value]
        return "-".join(
            [self.task, self.model, self.dtype, f"b{self.batch}", f"t{self.threads}", *marks],
        )

    @property
    def torch_dtype(self) -> torch.dtype:
        return DTYPES[self.dtype]

    @classmethod
    def parse(cls, name: str) -> Cell:
        """The cell of a name such as ``infer-resnet50-bf16-b16-t2`` or ``infer-resnet50-fp32-b1-t2-fast``.

        Raises:
            ValueError: it is not such a name.
        """
        parts = name.split("-")
        if (
            len(parts) < 5
            or parts[0] not in ("infer", "train", "saved")
            or parts[2] not in DTYPES
            or not (parts[3][:1] == "b" and parts[3][1:].isdigit())
            or not (parts[4][:1] == "t" and parts[4][1:].isdigit())
            or any(mark not in MARKS for mark in parts[5:])
        ):
            raise ValueError(f"cell: must read like infer-resnet50-bf16-b16-t2; got {name!r}")
        task: Task = parts[0]  # type: ignore[assignment]
        fields = dict(MARKS[mark] for mark in parts[5:])
        cell = cls(task, parts[1], parts[2], int(parts[3][1:]), int(parts[4][1:]), **fields)  # type: ignore[arg-type]
        if str(cell) != name:
            raise ValueError(f"cell: {name!r} must be spelled {str(cell)!r}")
        return cell
