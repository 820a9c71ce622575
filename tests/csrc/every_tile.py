"""Direct convolution and Winograd on the tiles of one instruction set: every kind of case against float64.

Run as a program it prints the instruction set in force; a result that breaks the 2x rule ends it. An
instruction set is chosen once a process.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

import fusedres
from fusedres import ops
from fusedres.backends.cpu import engine
from fusedres.backends.cpu.engine import Algorithm
from fusedres.ops._shapes import Geometry
from tests._parity import assert_same_bits, assert_within_two_x
from tests.csrc.test_conv_engine import (
    AWKWARD,
    BLOCKS,
    DILATED,
    GROUPED,
    LAYERS,
    NHWC,
    OPS,
    SHARED,
    Case,
    allowance,
    guarded,
    operands,
    plain,
    run,
    suits,
    test_bottleneck_equals_its_convolutions,
    test_nan_and_infinity_pass,
    test_rounded_blocks_are_those_that_bf16_is_stored_between,
    test_rounding_keeps_what_is_not_finite,
    test_without_affine_and_relu,
    threads,
)
from tests.csrc.test_stem_engine import STEMS, layout, pooled

#: The stem, a long sum, a strided 1 x 1 and 3 x 3, ResNet's 3 x 3 of stride 1, and everything whose sizes are
#: multiples of nothing.
DIRECT = (LAYERS[0], LAYERS[5], LAYERS[11], LAYERS[13], *AWKWARD, *GROUPED, *DILATED)
CASES = {
    Algorithm.DIRECT_F32: DIRECT,
    Algorithm.DIRECT_BF16_DOT: DIRECT,
    Algorithm.WINOGRAD_F32: (*LAYERS, *AWKWARD, *SHARED),
    Algorithm.WINOGRAD4_F32: (*LAYERS, *AWKWARD, *SHARED),
}


def check(case: Case, algorithm: Algorithm) -> None:
    x, w, scale, shift = operands(case, algorithm.dtype)
    shape = F.conv2d(x.float(), w.float(), **case.geometry).shape
    residual = torch.randn(shape).to(x.dtype).contiguous(memory_format=NHWC)
    allowed = allowance(case, algorithm, x, w * scale.to(w.dtype)[:, None, None, None])
    results = []
    for count in (1, 2, 3):
        with threads(count):
            add = guarded(residual)[0]
            results.append(run(case, algorithm, guarded(x)[0], w, scale, shift, add, True))
    for result in results[1:]:
        assert_same_bits(result, results[0], f"{case} on 1, 2 and 3 threads")
    if case.n:
        exact = plain(case, *(t.double() for t in (x, w, scale, shift, residual)))
        torchs = plain(case, x, w, scale, shift, residual)
        assert_within_two_x(results[0], exact, torchs, f"{case} {algorithm.name}", *allowed)


def check_stem(case: Case, algorithm: Algorithm) -> None:
    """Pooled from the same tiles' values, bit for bit."""
    x, w, scale, shift = operands(case, algorithm.dtype)
    packed = layout(case, algorithm, w)
    ours = OPS.stem_packed(x, packed, scale, shift)
    assert_same_bits(ours, pooled(x, packed, scale, shift), f"{case} {algorithm.name} pooled")


def check_changed_weight(algorithm: Algorithm) -> None:
    """Packed weights are kept until the weight changes, and no longer."""
    x, w, scale, shift = operands(AWKWARD[0], algorithm.dtype)
    w = torch.nn.Parameter(w, requires_grad=False)  # of other tensors nothing is kept between ops

    def ours() -> torch.Tensor:
        return engine.conv(x, w, scale, shift, None, False, Geometry(padding=(1, 1)), algorithm)

    before = ours()
    kept = engine.packed(w, Geometry(padding=(1, 1)), algorithm)
    assert_same_bits(ours(), before, "unchanged")
    assert engine.packed(w, Geometry(padding=(1, 1)), algorithm) is kept
    w.neg_()
    assert_same_bits(ours(), run(AWKWARD[0], algorithm, x, w, scale, shift, None, False), "changed")


def check_op(case: Case) -> None:
    """The op takes Winograd by rule with AVX2, oneDNN without; F(4x4) under `fast` alone."""
    x, w, scale, shift = operands(case, torch.float32)
    by_rule = {"default": Algorithm.WINOGRAD_F32, "fast": Algorithm.WINOGRAD4_F32}
    for precision, algorithm in by_rule.items():
        with fusedres.precision(precision):
            chosen = engine.choose(x.shape, x.dtype, w.shape, (1, 1), (1, 1), (1, 1), 1)
            ours = ops.conv_affine_act(x, w, scale, shift, padding=1)
        assert chosen == (None if engine.tile_isa(x.dtype) == "portable" else algorithm)
        if chosen is not None:
            assert_same_bits(ours, run(case, chosen, x, w, scale, shift, None, True), f"{case} {precision}")


if __name__ == "__main__":
    torch.manual_seed(0)
    for algorithm, cases in CASES.items():
        for case in filter(lambda case: suits(case, algorithm), cases):
            check(case, algorithm)
        for case in filter(lambda case: suits(case, algorithm), STEMS):
            check_stem(case, algorithm)
        test_without_affine_and_relu(AWKWARD[0], algorithm)
        for value in (float("nan"), float("inf")):
            test_nan_and_infinity_pass(algorithm, value)
        check_changed_weight(algorithm)
        print(engine.tile_isa(algorithm.dtype))
    check_op(LAYERS[1])
    for block in BLOCKS:
        for count in (1, 2):
            test_bottleneck_equals_its_convolutions(block, count, torch.float32)
    if engine.tile_isa(torch.float32) != "avx512":  # whose own tiles do not round
        for n in (1, 2):
            test_rounded_blocks_are_those_that_bf16_is_stored_between(n, 2)
        for last in (1, 3):
            test_rounding_keeps_what_is_not_finite(last)
