"""Passes that run while a convolution computes: the bits of the convolution and then the pass on its own."""

from __future__ import annotations

import pytest
import torch

from fusedres._build import extension_missing
from tests._parity import assert_same_bits

if extension_missing("_C") is not None:
    pytest.skip("the C++ extension is not built", allow_module_level=True)

from fusedres.backends.cpu import engine
from fusedres.backends.cpu.engine import Algorithm
from fusedres.ops._registry import kernel
from tests.csrc.test_conv_engine import AWKWARD, NHWC, NOT_FOR, Case, suits, threads

#: Many chunks of rows: threads meet inside one, inside a line of pixels, and inside a line of 2 x 2 patches.
CHUNKED = (
    Case("dense", 5, 16, 31, 29, 64),
    Case("lines", 5, 16, 31, 29, 64, 3, 1, 1),
    Case("strided", 5, 16, 61, 57, 64, 3, 2, 1),
    Case("stem", 2, 3, 90, 94, 64, 7, 2, 3),
    Case("one_image", 1, 16, 83, 81, 64, 3, 1, 1),
    Case("few_pixels", 1, 64, 7, 7, 128),
)


@pytest.fixture(params=Algorithm, ids=lambda a: a.name.lower())
def algorithm(request: pytest.FixtureRequest) -> Algorithm:
    if not engine.runs(request.param):
        pytest.skip(f"this CPU, build or FUSEDRES_CPU_ISA does not run {request.param.name}")
    return Algorithm(request.param)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("case", CHUNKED + AWKWARD, ids=str)
def test_statistics(case: Case, algorithm: Algorithm, count: int) -> None:
    if not suits(case, algorithm):
        pytest.skip(NOT_FOR)
    dtype = algorithm.dtype
    x = torch.randn(case.n, case.c, case.h, case.w).to(dtype).contiguous(memory_format=NHWC)
    w = torch.randn(case.k, case.c, case.r, case.r).to(dtype)
    pair = (case.stride, case.stride), (case.padding, case.padding)
    y = engine.conv_once(x, w, None, *pair, algorithm)
    expected = (y, *kernel("cpu", "bn_stats")(y))
    with threads(count):
        ours = engine.conv_once_stats(x, w, *pair, algorithm)
    for name, o, e in zip(("y", "count", "mean", "m2"), ours, expected, strict=True):
        assert_same_bits(o, e, f"{case} {algorithm.name} {name}, {count} threads")


@pytest.mark.parametrize("mask", ["affine", "out", "frozen"])
@pytest.mark.parametrize("case", [c for c in CHUNKED if c.stride == 1], ids=str)
def test_reductions(case: Case, algorithm: Algorithm, mask: str) -> None:
    if not suits(case, algorithm):
        pytest.skip(NOT_FOR)
    dtype = algorithm.dtype
    dy = torch.randn(case.n, case.c, case.h, case.w).to(dtype).contiguous(memory_format=NHWC)
    w = torch.randn(case.k, case.c, case.r, case.r).to(dtype)
    padding = (case.padding, case.padding)
    dx = engine.conv_once(dy, w, None, (1, 1), padding, algorithm)
    y = torch.randn(dx.shape).to(dtype).contiguous(memory_format=NHWC)
    scale, shift, mean, invstd = (torch.rand(case.k) for _ in range(4))
    before = {
        "affine": (None, y, scale, shift, mean, invstd),
        "out": (y, y, None, None, mean, invstd),
        "frozen": (y, None, None, None, None, None),
    }[mask]
    expected = kernel("cpu", "bn_act_bwd_reduce")(dx, *before, None, None, None)[:2]
    for count in (1, 2):
        with threads(count):
            ours = engine.conv_once_reduce(dy, w, before, padding, algorithm)
        for name, o, e in zip(("dz", "sums"), ours, expected, strict=True):
            assert_same_bits(o, e, f"{case} {algorithm.name} {name}, {count} threads")
