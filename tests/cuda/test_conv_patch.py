"""3×3 convolutions at stride 2, which read patches of two phases: each tile, both forward ops."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from fusedres.ops._dispatch import BACKENDS
from tests._parity import assert_same_bits, assert_within_two_x
from tests.ops._rules import Case, KernelRules
from tests.ops.shapes import ConvShape
from tests.ops.test_conv_affine_act import TestConvAffineAct
from tests.ops.test_conv_stats import TestConvStats

pytestmark = pytest.mark.gpu

DEVICE = torch.device("cuda")

RULES: dict[str, KernelRules] = {"conv_affine_act": TestConvAffineAct(), "conv_stats": TestConvStats()}
del TestConvAffineAct, TestConvStats  # or pytest would collect their tests here as well


class PatchCase(NamedTuple):
    """A shape, and the variant of each op; what a tile's size is holds on the stand-in's two processors."""

    why: str
    shape: ConvShape
    affine_act: str = "full"
    stats: str = "full"

    def __str__(self) -> str:
        return self.shape.name

    def case(self, op: str) -> Case:
        return Case(self.shape, self.affine_act if op == "conv_affine_act" else self.stats)


def three_by_three(
    name: str, n: int, c: int, h: int, w: int, k: int, padding: int = 1, dilation: int = 1, groups: int = 1
) -> ConvShape:
    return ConvShape(name, "", n, c, h, w, k, 3, 2, padding, dilation, groups)


CASES = (
    PatchCase(
        "128 x 128: an odd map, C and K no multiples of a step and of a tile",
        three_by_three("odd", n=3, c=72, h=29, w=27, k=136),
    ),
    PatchCase(
        "128 x 128: several images a tile, an odd number of columns",
        three_by_three("images", n=9, c=40, h=14, w=14, k=72),
        "conv_alone",
        "no_affine",
    ),
    PatchCase(
        "128 x 64: one image, rows as long as a quarter of a tile",
        three_by_three("one_image", n=1, c=40, h=33, w=66, k=40),
        "no_residual",
    ),
    PatchCase(
        "128 x 64: no padding, so that a map's last row or column is not read",
        three_by_three("unpadded", n=2, c=32, h=28, w=30, k=64, padding=0),
        "no_affine",
    ),
    PatchCase(
        "128 x 32: groups of 4, merged to 32 channels",
        three_by_three("grouped", n=2, c=64, h=23, w=21, k=64, groups=16),
    ),
    PatchCase(
        "two columns: 65 rows a tile, and most of a patch is halo",
        three_by_three("narrow", n=1, c=32, h=131, w=3, k=32),
        "no_relu",
    ),
    PatchCase(
        "no patch: dilation", three_by_three("dilated", n=2, c=32, h=19, w=17, k=40, padding=2, dilation=2)
    ),
    PatchCase("no patch: rows too long", three_by_three("long_rows", n=1, c=16, h=3, w=171, k=40)),
)


@pytest.fixture(autouse=True)
def _served() -> None:
    if reason := BACKENDS["cuda"].refusal(DEVICE, torch.bfloat16):
        pytest.skip(f"back-end 'cuda': {reason}")


@pytest.mark.parametrize("patch", CASES, ids=str)
@pytest.mark.parametrize("op", RULES)
def test_numbers(op: str, patch: PatchCase) -> None:
    """The 2× rule, and the same bits twice."""
    rules, case = RULES[op], patch.case(op)
    inputs = rules.made(case, torch.bfloat16, DEVICE)
    outputs = rules.call(inputs, "cuda")
    rules.compare(outputs, inputs, f"{op}, {patch.why}")
    for first, second in zip(outputs, rules.call(inputs, "cuda"), strict=True):
        assert_same_bits(second, first, f"{op}, {patch.why}")


@pytest.mark.slow  # four kernels more to translate where they are emulated
@pytest.mark.parametrize("op", RULES)
def test_tf32_and_fp16(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """TF32 has fp16's ten bits of mantissa, and is held to fp16's 2× rule, on values that both hold."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    rules, case = RULES[op], CASES[0].case(op)
    half = rules.made(case, torch.float16, DEVICE)
    single = {k: v.float() if isinstance(v, Tensor) else v for k, v in half.items()}
    exact = {k: v.double() if isinstance(v, Tensor) else v for k, v in half.items()}
    ours, reference = rules.call(single, "cuda")[0], rules.call(exact, "reference")[0]
    assert_within_two_x(ours.half(), reference, rules.plain(half)[0], f"{op} {case} in TF32")
    rules.compare(rules.call(half, "cuda"), half, f"{op} {case} in fp16")
