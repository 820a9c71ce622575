"""torch.compile as a user calls it, and with Inductor's freezing."""

from __future__ import annotations

import torch

from benchmarks.models.job import Job, Program
from benchmarks.models.peers.eager import torchvision_model
from benchmarks.models.steps import TrainingStep, inference


def compiled(job: Job) -> Program:
    model, images = torchvision_model(job, torch.channels_last)
    if job.cell.task == "infer":
        return inference(torch.compile(model), images, compiled=True)
    model.compile()
    return TrainingStep(model, images, job.labels(), job.cell.torch_dtype).program()


def frozen(job: Job) -> Program:
    """Parameters become constants, so BatchNorm folds and weights are packed when compiling."""
    import torch._inductor.config

    torch._inductor.config.freezing = True
    return compiled(job)
