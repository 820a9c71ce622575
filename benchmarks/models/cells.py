"""What is measured: one cell is a model, a task, a dtype, a batch size and a number of threads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatch
from typing import Literal

import torch

Task = Literal["infer", "train", "saved"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp64": torch.float64}


@dataclass(frozen=True)
class Cell:
    """One row of the results.

    ``infer`` and ``train`` are timed; ``saved`` counts the bytes a training forward keeps for backward.
    In training bf16 means autocast over fp32 parameters, in inference a bf16 model.
    """

    task: Task
    model: str
    dtype: str
    batch: int
    threads: int

    def __str__(self) -> str:
        return f"{self.task}-{self.model}-{self.dtype}-b{self.batch}-t{self.threads}"

    @property
    def torch_dtype(self) -> torch.dtype:
        return DTYPES[self.dtype]

    @classmethod
    def parse(cls, name: str) -> Cell:
        """The cell of a name such as ``infer-resnet50-bf16-b16-t2``.

        Raises:
            ValueError: it is not such a name.
        """
        parts = name.split("-")
        if (
            len(parts) != 5
            or parts[0] not in ("infer", "train", "saved")
            or parts[2] not in DTYPES
            or not (parts[3][:1] == "b" and parts[3][1:].isdigit())
            or not (parts[4][:1] == "t" and parts[4][1:].isdigit())
        ):
            raise ValueError(f"cell: must read like infer-resnet50-bf16-b16-t2; got {name!r}")
        task: Task = parts[0]  # type: ignore[assignment]
        return cls(task, parts[1], parts[2], int(parts[3][1:]), int(parts[4][1:]))


#: A full run, for one number of threads.
CELLS = (
    Cell("infer", "resnet50", "fp32", 1, 0),
    Cell("infer", "resnet50", "fp32", 16, 0),
    Cell("infer", "resnet50", "bf16", 1, 0),
    Cell("infer", "resnet50", "bf16", 16, 0),
    Cell("train", "resnet50", "fp32", 16, 0),
    Cell("train", "resnet50", "bf16", 16, 0),
    Cell("saved", "resnet50", "fp32", 16, 0),
    Cell("saved", "resnet18", "fp32", 16, 0),
)


def choose(patterns: list[str], threads: list[int]) -> list[Cell]:
    """The cells a command line names: globs over the full run's names, or exact names of any cell.

    Raises:
        ValueError: a pattern that no cell matches.
    """
    known = [replace(cell, threads=count) for count in threads for cell in CELLS]
    if not patterns:
        return known
    chosen: list[Cell] = []
    for pattern in patterns:
        matches = [
            cell for cell in known if fnmatch(str(cell), pattern) or fnmatch(str(cell), f"{pattern}-t*")
        ]
        if not matches:
            try:
                matches = [Cell.parse(pattern)]
            except ValueError as error:
                names = ", ".join(map(str, known))
                raise ValueError(f"--cells: {pattern!r} matches none of {names}, and as a {error}") from None
        chosen += [cell for cell in matches if cell not in chosen]
    return chosen
