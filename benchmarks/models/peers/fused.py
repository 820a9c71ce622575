"""Ours, exactly as a user writes it who replaces ``torchvision.models`` by ``fusedres``."""

from __future__ import annotations

import torch
from torch import Tensor

import fusedres
from benchmarks.models.job import Job, Program
from benchmarks.models.steps import TrainingStep, inference


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
    program = drop_in(job)
    forward, step = program.forward, program.step
    assert forward is not None  # `recompute` is listed for training tasks alone

    def frugal_forward() -> Tensor:
        with fusedres.memory("recompute"):
            return forward()

    def frugal_step() -> object:
        with fusedres.memory("recompute"):
            return step()

    return program._replace(forward=frugal_forward, step=frugal_step)
