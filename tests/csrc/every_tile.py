"""Direct convolution on the tiles of one instruction set: every kind of case against float64.

Run as a program it prints the instruction set in force; a result that breaks the 2x rule ends it. An
instruction set is chosen once a process.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from fusedres.backends.cpu import engine
from fusedres.backends.cpu.engine import Algorithm
from tests._parity import assert_same_bits, assert_within_two_x
from tests.csrc.test_conv_engine import (
    AWKWARD,
    DILATED,
    GROUPED,
    LAYERS,
    NHWC,
    OPS,
    Case,
    guarded,
    operands,
    plain,
    run,
    threads,
)
from tests.csrc.test_stem_engine import STEMS, layout, pooled

#: The stem, a long sum, a strided 1 x 1 and 3 x 3, and everything whose sizes are multiples of nothing.
CASES = (LAYERS[0], LAYERS[5], LAYERS[11], LAYERS[13], *AWKWARD, *GROUPED, *DILATED)


def check(case: Case, algorithm: Algorithm) -> None:
    x, w, scale, shift = operands(case, algorithm.dtype)
    shape = F.conv2d(x.float(), w.float(), **case.geometry).shape
    residual = torch.randn(shape).to(x.dtype).contiguous(memory_format=NHWC)
    results = []
    for count in (1, 2):
        with threads(count):
            add = guarded(residual)[0]
            results.append(run(case, algorithm, guarded(x)[0], w, scale, shift, add, True))
    assert_same_bits(*results, f"{case} on 1 and 2 threads")
    if case.n:
        wide = (t.double() for t in (x, w, scale, shift, residual))
        what = f"{case} {algorithm.name}"
        assert_within_two_x(results[0], plain(case, *wide), plain(case, x, w, scale, shift, residual), what)


def check_stem(case: Case, algorithm: Algorithm) -> None:
    """Pooled from the same tiles' values, bit for bit."""
    x, w, scale, shift = operands(case, algorithm.dtype)
    packed = layout(case, algorithm, w)
    ours = OPS.stem_packed(x, packed, scale, shift)
    assert_same_bits(ours, pooled(x, packed, scale, shift), f"{case} {algorithm.name} pooled")


if __name__ == "__main__":
    torch.manual_seed(0)
    for algorithm in (Algorithm.DIRECT_F32, Algorithm.DIRECT_BF16_DOT):
        for case in CASES:
            check(case, algorithm)
        for case in STEMS:
            check_stem(case, algorithm)
        print(engine.tile_isa(algorithm.dtype))
