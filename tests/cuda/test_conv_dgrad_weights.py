"""conv_dgrad reads a forward convolution's weights where they lie channels_last, and packs others.

Each case on a device of one processor as well (test_emulated.py), where the largest tiles are chosen.
"""

from __future__ import annotations

import pytest
import torch

from fusedres.ops._dispatch import BACKENDS
from tests._parity import assert_same_bits
from tests.ops._rules import Case
from tests.ops.shapes import ConvShape
from tests.ops.test_conv_dgrad import TestConvDgrad

pytestmark = pytest.mark.gpu

DEVICE = torch.device("cuda")

RULES = TestConvDgrad()
del TestConvDgrad  # or pytest would collect its tests here as well

CASES = (
    # 1 × 1: K and C end within a stage and within a tile of 128, and within an 8 × 8 matrix's sixteen.
    ConvShape("pointwise", "", n=2, c=152, h=9, w=8, k=40, r=1),
    ConvShape("patch", "", n=2, c=136, h=9, w=8, k=40, r=3, padding=1),
    ConvShape("few_columns", "32 columns a tile", n=2, c=24, h=9, w=8, k=72, r=3, padding=1),
    ConvShape("taps", "parity classes", n=2, c=72, h=9, w=7, k=40, r=3, stride=2, padding=1),
    ConvShape("groups", "", n=2, c=80, h=7, w=6, k=144, r=3, padding=1, groups=2),
    ConvShape(
        "narrow_groups", "merged, with zeros between", n=2, c=64, h=7, w=6, k=64, r=3, padding=1, groups=8
    ),
    ConvShape("odd_source", "K is no whole chunks", n=2, c=24, h=7, w=6, k=20, r=3, padding=1),
    ConvShape("odd_result", "C is none: packed", n=2, c=20, h=7, w=6, k=40, r=3, padding=1),
)


@pytest.fixture(autouse=True)
def _served() -> None:
    if reason := BACKENDS["cuda"].refusal(DEVICE, torch.bfloat16):
        pytest.skip(f"back-end 'cuda': {reason}")


@pytest.mark.parametrize("shape", CASES, ids=str)
def test_weights_as_they_lie(shape: ConvShape) -> None:
    """The 2× rule, and the same bits from weights that lie otherwise and have to be packed."""
    inputs = RULES.made(Case(shape, RULES.variants[0]), torch.bfloat16, DEVICE)
    outputs = RULES.call(inputs, "cuda")
    RULES.compare(outputs, inputs, f"weights in place: {shape.name}")
    packed = RULES.call({**inputs, "w": inputs["w"].contiguous()}, "cuda")
    shifted = torch.empty(inputs["w"].numel() + 1, dtype=torch.bfloat16, device=DEVICE)[1:]
    w = shifted.as_strided(inputs["w"].shape, inputs["w"].stride()).copy_(inputs["w"])
    unaligned = RULES.call({**inputs, "w": w}, "cuda")
    for other, what in ((packed, "contiguous"), (unaligned, "unaligned")):
        for name, o, e in zip(RULES.outputs, other, outputs, strict=True):
            assert_same_bits(o, e, f"{shape.name}, {what} weights: {name}")
