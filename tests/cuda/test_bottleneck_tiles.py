"""bottleneck_infer in one launch: each variant of the kernel, on maps that its tiles do not divide."""

from __future__ import annotations

import pytest
import torch

from fusedres.ops._dispatch import BACKENDS
from tests._parity import assert_same_bits
from tests.ops._rules import Case
from tests.ops.shapes import BlockShape
from tests.ops.test_bottleneck_infer import TestBottleneckInfer

pytestmark = pytest.mark.gpu

DEVICE = torch.device("cuda")

RULES = TestBottleneckInfer()
del TestBottleneckInfer  # or pytest would collect its tests here as well

SHAPES = (
    BlockShape("identity", "tiles cut by the map's edges", 2, 64, 13, 27, 64, m=64),
    BlockShape(
        "downsample", "two groups of outputs, one step of x", 1, 32, 27, 25, 128, m=64, downsample=True
    ),
    BlockShape("wide", "weights fed in two slices a tap", 1, 256, 14, 13, 256, m=128),
    BlockShape("many", "more tiles than some devices have processors", 19, 64, 28, 27, 64, m=64),
)


@pytest.fixture(autouse=True)
def _served() -> None:
    if reason := BACKENDS["cuda"].refusal(DEVICE, torch.bfloat16):
        pytest.skip(f"back-end 'cuda': {reason}")


@pytest.mark.parametrize("shape", SHAPES[:3], ids=str)
def test_numbers(shape: BlockShape) -> None:
    inputs = RULES.made(Case(shape, "full"), torch.bfloat16, DEVICE)
    RULES.compare(RULES.call(inputs, "cuda"), inputs, f"bottleneck_infer {shape}")


def test_float16() -> None:
    inputs = RULES.made(Case(SHAPES[0], "full"), torch.float16, DEVICE)
    RULES.compare(RULES.call(inputs, "cuda"), inputs, "bottleneck_infer in float16")


def test_a_block_of_the_grid_walks_over_tiles() -> None:
    """Each image of a large batch has the bits that it has alone."""
    inputs = RULES.made(Case(SHAPES[3], "full"), torch.bfloat16, DEVICE)
    (out,) = RULES.call(inputs, "cuda")
    for image in (0, 9, 18):
        x = inputs["x"][image : image + 1].clone(memory_format=torch.channels_last)
        (alone,) = RULES.call({**inputs, "x": x}, "cuda")
        assert_same_bits(out[image : image + 1], alone, f"image {image}")
