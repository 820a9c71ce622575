"""What a plan tells blocks apart by: everything that changes how long they take."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops.misc import FrozenBatchNorm2d

import fusedres
from fusedres import FusedBottleneck, FusedResNet
from fusedres.plan._block import Block
from fusedres.plan._record import record

BASE = Block(
    "bottleneck",
    (2, 8, 6, 6),
    ((4, 8, 1, 1, 1, 1, 0, 0, 1, 1, 1), (4, 2, 3, 3, 2, 2, 1, 1, 1, 1, 2), (8, 4, 1, 1, 1, 1, 0, 0, 1, 1, 1)),
    False,
    "train",
    "float32",
    "nhwc",
    2,
)


def key(module: nn.Module, x: Tensor) -> str:
    (name,) = record(lambda: module(x)).seen
    return name


def channels_last(*shape: int) -> Tensor:
    return torch.randn(*shape).contiguous(memory_format=torch.channels_last)


def test_it_reads_as_a_person_would_write_it() -> None:
    assert str(BASE) == (
        "bottleneck 2x8x6x6: 4x8x1x1, 4x2x3x3 stride 2 padding 1 groups 2, 8x4x1x1; "
        "train, float32, nhwc, 2 threads"
    )


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "basic_block"},
        {"x": (1, 8, 6, 6)},
        {"layers": BASE.layers[:2]},
        {"layers": ((4, 8, 1, 1, 1, 1, 0, 0, 1, 1, 2), *BASE.layers[1:])},
        {"layers": ((4, 8, 1, 1, 1, 2, 0, 0, 1, 1, 1), *BASE.layers[1:])},
        {"layers": ((4, 8, 1, 1, 1, 1, 0, 1, 1, 1, 1), *BASE.layers[1:])},
        {"layers": ((4, 8, 1, 1, 1, 1, 0, 0, 2, 1, 1), *BASE.layers[1:])},
        {"skip": True},
        {"mode": "frozen"},
        {"dtype": "autocast bfloat16"},
        {"layout": "nchw"},
        {"threads": 1},
        {"backend": "cpu"},
        {"precision": "fast"},
        {"memory": "recompute"},
    ],
    ids=str,
)
def test_every_part_tells(change: dict[str, object]) -> None:
    assert str(BASE._replace(**change)) != str(BASE)


def test_calls_of_one_block_under_other_circumstances() -> None:
    block, x = FusedBottleneck(16, 4), channels_last(2, 16, 6, 6)
    keys = [key(block, x), key(block.eval(), x)]
    with torch.no_grad():
        keys.append(key(block, x))
        keys.append(key(block, x[:1]))
        keys.append(key(block, x.contiguous()))
        keys.append(key(copy.deepcopy(block).bfloat16(), x.bfloat16()))
        with torch.autocast("cpu", torch.bfloat16):
            keys.append(key(block, x))
        with fusedres.backend("reference"):
            keys.append(key(block, x))
        with fusedres.precision("fast"):
            keys.append(key(block, x))
        with fusedres.memory("recompute"):
            keys.append(key(block, x))
        torch.set_num_threads(2)
        keys.append(key(block, x))
        torch.set_num_threads(1)
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    "options", [{"groups": 2}, {"dilation": 2}, {"base_width": 32}], ids=["groups", "dilation", "width"]
)
def test_grouped_and_dilated_geometry(options: dict[str, int]) -> None:
    x = channels_last(2, 64, 6, 6)
    assert key(FusedBottleneck(64, 16, **options), x) != key(FusedBottleneck(64, 16), x)


def test_equal_blocks_are_one() -> None:
    model = FusedResNet(Bottleneck, [3, 1, 1, 1], num_classes=3).eval()
    with torch.no_grad():
        recorder = record(lambda: model(channels_last(2, 3, 32, 32)))
    modules = sorted(len(found) for found in recorder.modules.values())
    assert modules == [1, 1, 1, 1, 1, 2]


def test_frozen_norms_are_frozen_in_training_too() -> None:
    model = FusedResNet(BasicBlock, [1, 1, 1, 1], num_classes=3, norm_layer=FrozenBatchNorm2d).train()
    seen = record(lambda: model(channels_last(2, 3, 32, 32))).seen
    assert {found.block.mode for found in seen.values()} == {"frozen"}
