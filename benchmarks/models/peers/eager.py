"""torchvision's own model, run eagerly, and in float64 as the reference."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models import get_model

from benchmarks.models.job import Job, Program
from benchmarks.models.steps import TrainingStep, inference
from fusedres.cli.networks import reference
from fusedres.cli.training import moved_images


def channels_last(job: Job) -> Program:
    return _program(job, torch.channels_last)


def contiguous(job: Job) -> Program:
    return _program(job, torch.contiguous_format)


def _program(job: Job, layout: torch.memory_format) -> Program:
    model, images = torchvision_model(job, layout)
    if job.cell.task == "infer":
        return inference(model, images)
    return TrainingStep(model, images, job.labels(), job.cell.torch_dtype).program()


def torchvision_model(job: Job, layout: torch.memory_format) -> tuple[nn.Module, Tensor]:
    """The model and its images in the cell's dtype; training keeps fp32 and leaves bf16 to autocast."""
    model = job.load_into(get_model(job.cell.model, weights=None))
    infer = job.cell.task == "infer"
    dtype = job.cell.torch_dtype if infer else torch.float32
    model = model.train(not infer).to(dtype).to(memory_format=layout)
    return model, job.images().to(dtype=dtype, memory_format=layout)


def exact(job: Job) -> Program:
    """Float64 on images and parameters rounded as the cell's dtype rounds them."""
    cell, infer = job.cell, job.cell.task == "infer"
    model = job.load_into(get_model(cell.model, weights=None)).train(not infer)
    wide = reference(model, job.images(), torch.device("cpu"), cell.torch_dtype, keep_norms=not infer)
    if infer:
        return inference(wide.model, wide.images)
    truth = TrainingStep(wide.model, wide.images, job.labels(), torch.float64)
    moved = TrainingStep(wide.model, moved_images(wide.images), job.labels(), torch.float64)
    return truth.program()._replace(outputs=lambda: {"truth": truth.outputs(), "moved": moved.outputs()})
