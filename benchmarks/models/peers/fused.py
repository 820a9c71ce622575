"""Ours, exactly as a user writes it who replaces ``torchvision.models`` by ``fusedres``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import TypeVar

import torch

import fusedres
from benchmarks.models.job import Job, Program
from benchmarks.models.steps import TrainingStep, inference

T = TypeVar("T")


def drop_in(job: Job) -> Program:
    cell = job.cell
    infer = cell.task == "infer"
    dtype = cell.torch_dtype if infer else torch.float32
    model = job.load_into(getattr(fusedres, cell.model)()).train(not infer)
    model = model.to(dtype).to(memory_format=torch.channels_last)
    images = job.images().to(dtype=dtype, memory_format=torch.channels_last)
    if job.tune and cell.task != "saved":
        with torch.autocast("cpu", torch.bfloat16, enabled=not infer and cell.dtype == "bf16"):
            fusedres.tune(model, images, progress=False, table=False)
    if infer:
        return inference(model, images)
    return TrainingStep(model, images, job.labels(), cell.torch_dtype).program()


def recompute(job: Job) -> Program:
    """The same with each bottleneck's last 1×1 convolution computed again in backward."""
    return _within(drop_in(job), partial(fusedres.memory, "recompute"))


def fast(job: Job) -> Program:
    """The same with algorithms that round more, by the factors of docs/numerics.md."""
    return _within(drop_in(job), partial(fusedres.precision, "fast"))


def _within(program: Program, switch: Callable[[], AbstractContextManager[None]]) -> Program:
    """``program`` with every call inside a context."""

    def inside(call: Callable[[], T]) -> Callable[[], T]:
        def switched() -> T:
            with switch():
                return call()

        return switched

    forward = program.forward and inside(program.forward)
    return program._replace(step=inside(program.step), outputs=inside(program.outputs), forward=forward)
