"""Whole networks on the back-ends of a GPU: an inference and a training step, against torchvision on the CPU.

The yardstick is the CPU's on a GPU too, so that a GPU and the stand-in device are held to the same numbers.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import pytest
import torch
import torchvision.models
from torch import Tensor, nn

import fusedres
from fusedres.cli.networks import Contender, reference
from fusedres.cli.parity import two_times_rule
from fusedres.cli.training import judge, moved_images, run_step
from fusedres.ops._dispatch import BACKENDS
from tests._fused import calibrate, fused_calls
from tests._tf32 import tf32_convolutions
from tests.conftest import device_of

pytestmark = pytest.mark.gpu

CPU = torch.device("cpu")
BLOCKS = {"resnet18": ["basic_block"] * 8, "resnet50": ["bottleneck"] * 16}
#: Each logit is one projection of the features. Of 14 in bf16, plain PyTorch's own error on a ResNet-50 went
#: from 0.12 to 0.24 (rms) with the seed, so that chance decided; many projections tell the error's size.
CLASSES = {"resnet18": 7, "resnet50": 512}
COMPOSITIONS = ("pointwise", "stats", "mainloop")
#: A bf16 model in inference, autocast in training.
DTYPES = {"bf16": torch.bfloat16, "tf32": torch.float32, "fp32": torch.float32}
#: What `make test` runs on the stand-in device.
QUICK = ("cuda", "resnet18", "stats", "bf16")


def cases(*compositions: str) -> list[object]:
    """(back-end, network, composition, numerics)."""
    found = [
        (backend, name, composition, numerics)
        for backend in ("cuda", "triton")
        for name in BLOCKS
        for composition in compositions
        for numerics in DTYPES
    ]
    return [
        pytest.param(*case, id="-".join(case), marks=() if case == QUICK else pytest.mark.slow)
        for case in found
    ]


def images() -> Tensor:
    """Of odd size: maps of 17, 9, 5, 3 and 2, so that the last BatchNorms still see 8 values a channel."""
    return torch.randn(2, 3, 33, 33).contiguous(memory_format=torch.channels_last)


def network(name: str, x: Tensor) -> nn.Module:
    """torchvision's, on the CPU, with the statistics of ``x``."""
    model: nn.Module = getattr(torchvision.models, name)(num_classes=CLASSES[name])
    model.to(memory_format=torch.channels_last)
    calibrate(model, x)
    return model


def plain_numerics(numerics: str) -> AbstractContextManager[None]:
    return tf32_convolutions() if numerics == "tf32" else nullcontext()


@contextmanager
def all_fused(backend: str, name: str, numerics: str) -> Iterator[torch.device]:
    """What is inside runs on ``backend``, whose device is given, every block of it fused.

    Where the environment asks for that back-end already, it decides.
    """
    device = device_of(backend)
    if reason := BACKENDS[backend].refusal(device, DTYPES[numerics]):
        pytest.skip(f"back-end '{backend}': {reason}")
    torch.backends.cudnn.allow_tf32 = numerics == "tf32"  # tests/conftest.py puts it back
    asked = os.environ.get("FUSEDRES_BACKEND") == backend
    with nullcontext() if asked else fusedres.backend(backend), fused_calls() as calls:
        yield device
    assert calls == ["stem", *BLOCKS[name]]


@pytest.mark.parametrize(("backend", "name", "composition", "numerics"), cases("auto"))
def test_inference(backend: str, name: str, composition: str, numerics: str) -> None:
    x, dtype = images(), DTYPES[numerics]
    plain = network(name, x).eval()
    exact = reference(plain, x, CPU, dtype, keep_norms=False)
    with torch.no_grad():
        truth = exact.model(exact.images)
        with plain_numerics(numerics):
            yardstick = copy.deepcopy(plain).to(dtype)(x.to(dtype))
        with all_fused(backend, name, numerics) as device:
            ours = fusedres.fuse(copy.deepcopy(plain)).to(device, dtype)(x.to(device, dtype))
    parity = two_times_rule("logits", ours, yardstick, truth)
    assert parity.passed, parity


@pytest.mark.parametrize(("backend", "name", "composition", "numerics"), cases(*COMPOSITIONS))
def test_training_step(backend: str, name: str, composition: str, numerics: str) -> None:
    """bf16 is autocast's."""
    x, labels, dtype = images(), torch.arange(2), DTYPES[numerics]
    plain = network(name, x).train()
    exact = reference(plain, x, CPU, dtype, keep_norms=True)
    truth = run_step(exact, labels, torch.float64)
    moved = run_step(Contender(exact.model, moved_images(exact.images)), labels, torch.float64)
    fused = fusedres.fuse(copy.deepcopy(plain))
    with plain_numerics(numerics):
        yardstick = run_step(Contender(plain, x), labels, dtype)
    with all_fused(backend, name, numerics) as device, fusedres.composition(composition):
        ours = run_step(Contender(fused.to(device), x.to(device)), labels.to(device), dtype)
    for parity in judge(ours, yardstick, truth, moved):
        assert parity.passed, parity
    assert all(int(n) == 2 for k, n in fused.named_buffers() if k.endswith("num_batches_tracked"))
