"""conv_wgrad where channels are whole 16-byte chunks: each tile, and what is formed on the way to it."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from fusedres.ops._dispatch import BACKENDS
from tests._parity import assert_same_bits, assert_within_two_x
from tests.ops._rules import Case
from tests.ops.shapes import ConvShape
from tests.ops.test_conv_wgrad import TestConvWgrad

pytestmark = pytest.mark.gpu

DEVICE = torch.device("cuda")

RULES = TestConvWgrad()
del TestConvWgrad  # or pytest would collect its tests here as well


class TileCase(NamedTuple):
    why: str
    case: Case

    def __str__(self) -> str:
        return str(self.case)


CASES = (
    TileCase(
        "128 x 128, 1 x 1, parts that end between stages",
        Case(ConvShape("square", "", n=3, c=128, h=15, w=13, k=128, r=1), "full"),
    ),
    TileCase(
        "128 x 128, taps on padding, columns past the last tile, stride 2",
        Case(ConvShape("taps", "", n=2, c=136, h=7, w=9, k=120, r=3, stride=2, padding=1), "full"),
    ),
    TileCase(
        "the ring: one row of pixels ahead, parts of several images, channels past the last tile",
        Case(ConvShape("ring", "", n=9, c=40, h=8, w=9, k=72, r=3, padding=1), "full"),
    ),
    TileCase(
        "the ring: long rows, two stages of pixels ahead",
        Case(ConvShape("ring_rows", "", n=1, c=64, h=5, w=61, k=64, r=3, padding=1), "full"),
    ),
    TileCase(
        "the ring: dilation, groups, operands as they are",
        Case(
            ConvShape("ring_groups", "", n=2, c=64, h=9, w=11, k=128, r=3, padding=2, dilation=2, groups=2),
            "alone",
        ),
    ),
    TileCase(
        "64 x 128: few outputs",
        Case(ConvShape("narrow", "", n=2, c=128, h=11, w=12, k=64, r=1), "no_input_affine"),
    ),
    TileCase(
        "64 x 64, groups of whole chunks, stride and dilation",
        Case(
            ConvShape(
                "grouped", "", n=2, c=32, h=13, w=11, k=48, r=3, stride=2, padding=2, dilation=2, groups=2
            ),
            "alone",
        ),
    ),
)


@pytest.fixture(autouse=True)
def _served() -> None:
    if reason := BACKENDS["cuda"].refusal(DEVICE, torch.bfloat16):
        pytest.skip(f"back-end 'cuda': {reason}")


@pytest.mark.parametrize("tile", CASES, ids=str)
def test_numbers(tile: TileCase) -> None:
    """The 2× rule, and the same bits twice: parts are summed in their order."""
    inputs = RULES.made(tile.case, torch.bfloat16, DEVICE)
    outputs = RULES.call(inputs, "cuda")
    RULES.compare(outputs, inputs, f"{tile.why}: {tile.case}")
    assert_same_bits(RULES.call(inputs, "cuda")[0], outputs[0], str(tile.case))


@pytest.mark.parametrize("name", ["odd", "pointwise"])
def test_tf32(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """TF32 has fp16's ten bits of mantissa, and is held to fp16's 2× rule, on values that both hold."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    case = Case(next(s for s in RULES.shapes if s.name == name), "alone")
    half = RULES.made(case, torch.float16, DEVICE)
    single = {k: v.float() if isinstance(v, Tensor) else v for k, v in half.items()}
    exact = {k: v.double() if isinstance(v, Tensor) else v for k, v in half.items()}
    ours, reference = RULES.call(single, "cuda")[0], RULES.call(exact, "reference")[0]
    assert_within_two_x(ours.half(), reference, RULES.plain(half)[0], f"{case} in TF32")
