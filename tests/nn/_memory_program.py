"""One model's memory in a process of its own: ``python -m tests.nn._memory_program JSON``.

Prints JSON: the peak of resident memory while it runs over what was held before the model was made, and the
page faults of each call.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import NamedTuple

import torch
import torchvision

import fusedres
from benchmarks.models.steps import TrainingStep, inference


class Task(NamedTuple):
    """What to run: ours or torchvision's, an inference or training steps."""

    ours: bool
    model: str
    dtype: str
    batch: int
    train: bool
    calls: int
    size: int = 224
    offload: bool = False


class Found(NamedTuple):
    peak: int
    faults: list[int]


def resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024


def run(task: Task) -> Found:
    dtype = getattr(torch, task.dtype)
    torch.manual_seed(0)
    before = resident("VmRSS")
    make = getattr(fusedres if task.ours else torchvision.models, task.model)
    model = make().train(task.train).to(memory_format=torch.channels_last)
    images = torch.randn(task.batch, 3, task.size, task.size).contiguous(memory_format=torch.channels_last)
    if task.train:
        step = TrainingStep(model, images, torch.zeros(task.batch, dtype=torch.long), dtype).step
    else:
        step = inference(model.to(dtype), images.to(dtype)).step
    if task.offload:
        fusedres.offload(model, Path.cwd() / "build")
    Path("/proc/self/clear_refs").write_text("5")  # proc(5): the peak counts from here
    faults = []
    for _ in range(task.calls):
        count = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        step()
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - count)
    return Found(resident("VmHWM") - before, faults)


if __name__ == "__main__":
    print(json.dumps(run(Task(*json.loads(sys.argv[1])))))
