"""The stem as one op (csrc/cpu/conv/stem_packed.cpp): the convolution op's values, pooled, bit for bit."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fusedres.backends.cpu.engine import Algorithm
from tests._parity import assert_same_bits
from tests.csrc.test_conv_engine import NHWC, NOT_FOR, OPS, Case, algorithm, guarded, operands, suits, threads

__all__ = ["algorithm"]  # a fixture

#: ResNet's stem; maps of odd and even sides, down to one pixel; more images than threads, and none.
STEMS = (
    Case("stem", 1, 3, 62, 62, 64, 7, 2, 3),
    Case("odd_sides", 2, 3, 37, 51, 33, 7, 2, 3),
    Case("batch", 5, 3, 30, 26, 40, 7, 2, 3),
    Case("three_by_three", 3, 5, 13, 12, 17, 3, 1, 1),
    Case("one_row", 1, 4, 1, 9, 64, 3, 1, 1),
    Case("one_pixel", 2, 7, 1, 1, 7),
    Case("two_pixels", 1, 7, 2, 2, 70, 3, 1, 1),
    Case("no_images", 0, 3, 12, 12, 8, 7, 2, 3),
)


def layout(case: Case, algorithm: Algorithm, w: Tensor) -> Tensor:
    pair = (case.stride, case.stride), (case.padding, case.padding)
    packed: Tensor = OPS.conv_pack(w, *pair, int(algorithm), (1, 1), 1)
    return packed


def pooled(x: Tensor, packed: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """By the op for a convolution alone, and torch's pooling."""
    y = OPS.conv_packed(x, packed, scale, shift, None, True)
    return F.max_pool2d(y, 3, 2, 1).contiguous(memory_format=NHWC)


@pytest.mark.parametrize("case", STEMS, ids=str)
def test_same_bits_as_one_after_the_other(case: Case, algorithm: Algorithm) -> None:
    if not suits(case, algorithm):
        pytest.skip(NOT_FOR)
    x, w, scale, shift = operands(case, algorithm.dtype)
    packed = layout(case, algorithm, w)
    expected = pooled(x, packed, scale, shift)
    for count in (1, 2, 3):
        with threads(count):
            ours = OPS.stem_packed(guarded(x)[0] if case.n else x, packed, scale, shift)
        assert ours.is_contiguous(memory_format=NHWC)
        assert_same_bits(ours, expected, f"{case} {algorithm.name}, {count} threads")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nan_passes_through_and_reaches_its_windows_alone(dtype: torch.dtype) -> None:
    case = Case("nan", 1, 3, 20, 20, 32)  # 1 x 1, so that a pixel's NaN stays its own
    x, w, scale, shift = operands(case, dtype)
    x[0, 1, 7, 4] = torch.nan
    algorithm = Algorithm.DIRECT_F32 if dtype == torch.float32 else Algorithm.DIRECT_BF16_DOT
    out = OPS.stem_packed(x, layout(case, algorithm, w), scale, shift)
    hit = torch.zeros(10, 10, dtype=torch.bool)
    hit[3:5, 2] = True
    assert torch.equal(out[0].isnan(), hit.expand(32, 10, 10))


def test_without_affine() -> None:
    case = STEMS[1]
    x, w, _, _ = operands(case, torch.float32)
    packed = layout(case, Algorithm.DIRECT_F32, w)
    expected = pooled(x, packed, torch.ones(case.k), torch.zeros(case.k))
    assert_same_bits(OPS.stem_packed(x, packed, None, None), expected, "no scale, no shift")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, p, s: (x[:, :2], p, s), "stem_packed: `packed` was packed for 3 input channels; got 2"),
        (lambda x, p, s: (x.bfloat16(), p, s), "stem_packed: `x` must have the dtype that the weights"),
        (
            lambda x, p, s: (x, p[:-1], s),
            "stem_packed: `packed` must be a tensor made by conv_pack, unchanged",
        ),
        (lambda x, p, s: (x, p, s[:-1]), "stem_packed: `scale` must"),
        (lambda x, p, s: (x[0], p, s), "stem_packed: `x` must"),
        (
            lambda x, p, s: (x[:, :, :0], p, s),
            "stem_packed: a convolution's output must have a pixel at least",
        ),
    ],
    ids=["channels", "dtype", "packed", "scale", "rank", "pixels"],
)
def test_what_does_not_fit_is_refused(change: object, message: str) -> None:
    x, w, scale, shift = operands(STEMS[0], torch.float32)
    x, packed, scale = change(x, layout(STEMS[0], Algorithm.DIRECT_F32, w), scale)  # type: ignore[operator]
    if x.dim() == 4:
        x = x.contiguous(memory_format=NHWC)
    with pytest.raises(RuntimeError, match=message):
        OPS.stem_packed(x, packed, scale, shift)
