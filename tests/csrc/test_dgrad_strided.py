"""The CPU engine's dgrad at a stride (csrc/cpu/conv/dgrad_strided.cpp) against float64."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from fusedres._build import extension_missing
from tests._parity import assert_same_bits, assert_within_two_x

if extension_missing("_C") is not None:
    pytest.skip("the C++ extension is not built", allow_module_level=True)

from fusedres.backends.cpu import engine
from fusedres.backends.cpu.engine import Algorithm
from tests.csrc.test_conv_engine import NHWC, guarded, threads

ALGORITHMS = (
    Algorithm.DIRECT_F32,
    Algorithm.DIRECT_BF16_DOT,
    Algorithm.DIRECT_BF16_AMX,
    Algorithm.DIRECT_F32_AMX,
)


class Case(NamedTuple):
    name: str
    n: int
    c: int
    k: int
    size: tuple[int, int]  # of x
    taps: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]

    def __str__(self) -> str:
        return self.name

    @property
    def output(self) -> tuple[int, int]:
        p, q = (
            (size + 2 * pad - taps) // stride + 1
            for size, taps, stride, pad in zip(self.size, self.taps, self.stride, self.padding, strict=True)
        )
        return p, q


CASES = (
    Case("resnet_28", 2, 64, 128, (28, 28), (3, 3), (2, 2), (1, 1)),
    Case("resnet_14", 1, 256, 256, (14, 14), (3, 3), (2, 2), (1, 1)),
    Case("pointwise", 2, 40, 33, (14, 14), (1, 1), (2, 2), (0, 0)),
    Case("stem", 1, 3, 64, (30, 30), (7, 7), (2, 2), (3, 3)),
    # Without a row of zeros behind dy; with pixels of x that no output reaches.
    Case("odd_map", 2, 17, 20, (13, 11), (3, 3), (2, 2), (1, 1)),
    Case("unreached", 1, 9, 12, (12, 13), (2, 2), (3, 3), (0, 0)),
    # A phase without taps in one dimension alone; as much padding as there may be.
    Case("fewer_taps", 2, 8, 24, (9, 10), (3, 1), (2, 2), (1, 0)),
    Case("most_padding", 1, 20, 7, (8, 9), (3, 4), (2, 3), (2, 3)),
    Case("one_stride", 2, 33, 16, (9, 8), (5, 3), (3, 1), (2, 1)),
    Case("long_stride", 1, 5, 6, (17, 16), (2, 3), (5, 4), (0, 1)),
    Case("one_pixel", 1, 7, 9, (1, 1), (3, 3), (2, 2), (1, 1)),
    Case("one_channel", 3, 1, 1, (6, 6), (3, 3), (2, 2), (1, 1)),
    Case("no_images", 0, 8, 8, (6, 6), (3, 3), (2, 2), (1, 1)),
)


@pytest.fixture(params=ALGORITHMS, ids=lambda a: a.name.lower())
def algorithm(request: pytest.FixtureRequest) -> Algorithm:
    if not engine.runs(request.param):
        pytest.skip(f"this CPU, build or FUSEDRES_CPU_ISA does not run {request.param.name}")
    return Algorithm(request.param)


def operands(case: Case, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """dy, w, add."""
    shapes = (case.n, case.k, *case.output), (case.k, case.c, *case.taps), (case.n, case.c, *case.size)
    dy, w, add = (torch.randn(shape).to(dtype).contiguous(memory_format=NHWC) for shape in shapes)
    return dy, w, add


def ours(case: Case, algorithm: Algorithm, dy: Tensor, w: Tensor, add: Tensor | None) -> Tensor:
    x_shape = (case.n, case.c, *case.size)
    return engine.dgrad_strided(dy, w, add, x_shape, case.stride, case.padding, algorithm)


def plain(case: Case, dy: Tensor, w: Tensor, add: Tensor | None) -> Tensor:
    x = torch.empty(case.n, case.c, *case.size, dtype=dy.dtype)
    geometry = case.stride, case.padding, (1, 1)
    dx: Tensor = torch.ops.aten.convolution_backward(
        dy, x, w, None, *geometry, False, (0, 0), 1, (True, False, False)
    )[0]
    return dx if add is None else dx + add


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_two_times_rule(case: Case, algorithm: Algorithm, count: int) -> None:
    dy, w, add = operands(case, algorithm.dtype)
    with threads(count):
        for sum_with in (None, add):
            dx = ours(case, algorithm, dy, w, sum_with)
            assert dx.shape == add.shape and dx.is_contiguous(memory_format=NHWC)
            exact = plain(case, dy.double(), w.double(), None if sum_with is None else sum_with.double())
            if case.n:
                assert_within_two_x(dx, exact, plain(case, dy, w, sum_with), f"{case} {algorithm.name}")
            assert_same_bits(ours(case, algorithm, dy, w, sum_with), dx, f"{case} twice")
            contiguous = ours(case, algorithm, dy, w.contiguous(), sum_with)
            assert_same_bits(contiguous, dx, f"{case}, weights in another layout")


@pytest.mark.parametrize("case", CASES[1:-1], ids=str)
def test_reads_nothing_beyond_its_operands(case: Case, algorithm: Algorithm) -> None:
    dy, w, add = operands(case, algorithm.dtype)
    expected = ours(case, algorithm, dy, w, add)
    for count in (1, 2, 3):
        with threads(count):
            dx = ours(case, algorithm, guarded(dy)[0], w, guarded(add)[0])
        assert_same_bits(dx, expected, f"{case} among NaN, {count} threads")


def test_refusals() -> None:
    case = CASES[0]
    dy, w, add = operands(case, torch.float32)
    direct = Algorithm.DIRECT_F32
    x_shape = (case.n, case.c, *case.size)
    for message, *call in (
        ("cannot run algorithm 99", dy, w, None, x_shape, (2, 2), (1, 1), 99),
        ("need stride 1", dy, w, None, x_shape, (2, 2), (1, 1), Algorithm.WINOGRAD_F32),
        ("dtype", dy, w.bfloat16(), None, x_shape, (2, 2), (1, 1), direct),
        ("`dy` must have the dtype of `w`", dy.bfloat16(), w, None, x_shape, (2, 2), (1, 1), direct),
        (
            r"must be \(N, C, H, W\), .*; got \(.*\), \(.*\) and \(.*, 9, ",
            dy,
            w[:, :9],
            None,
            x_shape,
            (2, 2),
            (1, 1),
            direct,
        ),
        (
            "`padding` must be less than the filter's 3 taps; got 3",
            dy,
            w,
            None,
            x_shape,
            (2, 2),
            (3, 1),
            direct,
        ),
        ("`stride` must be two numbers of 1 or more", dy, w, None, x_shape, (0, 2), (1, 1), direct),
        (
            r"with `dy`'s output \(.*\); got \(.*, 30\)",
            dy,
            w,
            None,
            (*x_shape[:3], 30),
            (2, 2),
            (1, 1),
            direct,
        ),
        ("`add` must have shape", dy, w, add[:1], x_shape, (2, 2), (1, 1), direct),
        ("at most 128 taps", dy, torch.ones(128, 64, 12, 12), None, x_shape, (2, 2), (1, 1), direct),
    ):
        with pytest.raises(RuntimeError, match=message):
            torch.ops.fusedres_cpu.dgrad_strided(*call)
