"""Ours, exactly as a user writes it who replaces ``torchvision.models`` by ``fusedres``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

import torch

import fusedres
from benchmarks.models.job import Job, Program
from benchmarks.models.steps import TrainingStep, inference

T = TypeVar("T")


def drop_in(job: Job) -> Program:
    """A default precision is left unsaid, as a user leaves it."""
    program = _program(job)
    precision = job.cell.precision
    return program if precision == "default" else _within(lambda: fusedres.precision(precision), program)


def offloaded(job: Job) -> Program:
    """The same after :func:`fusedres.offload`: the weights that are packed lie in a file."""
    program = drop_in(job)
    assert program.model is not None
    fusedres.offload(program.model)
    return program


def _program(job: Job) -> Program:
    cell = job.cell
    infer = cell.task == "infer"
    dtype = cell.torch_dtype if infer else torch.float32
    model = job.load_into(getattr(fusedres, cell.model)()).train(not infer)
    model = model.to(dtype).to(memory_format=torch.channels_last)
    images = job.images().to(dtype=dtype, memory_format=torch.channels_last)
    if job.tune and cell.task != "saved":
        autocast = torch.autocast("cpu", torch.bfloat16, enabled=not infer and cell.dtype == "bf16")
        with autocast, fusedres.precision(cell.precision):
            fusedres.tune(model, images, progress=False, table=False)
    if infer:
        return inference(model, images)._replace(model=model)
    return TrainingStep(model, images, job.labels(), cell.torch_dtype).program()


def recompute(job: Job) -> Program:
    """The same with each bottleneck's last 1×1 convolution computed again in backward."""
    return _within(lambda: fusedres.memory("recompute"), drop_in(job))


def _within(context: Callable[[], AbstractContextManager[None]], program: Program) -> Program:
    """``program`` with every call inside a context of its own."""

    def wrap(call: Callable[[], T]) -> Callable[[], T]:
        def run() -> T:
            with context():
                return call()

        return run

    return program._replace(
        step=wrap(program.step),
        outputs=wrap(program.outputs),
        forward=None if program.forward is None else wrap(program.forward),
    )
