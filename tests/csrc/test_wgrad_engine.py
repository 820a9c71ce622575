"""The CPU engine's weight gradients (csrc/cpu/conv/wgrad*): every algorithm against float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fusedres._build import extension_missing
from tests._parity import assert_same_bits, assert_within_two_x

if extension_missing("_C") is not None:
    pytest.skip("the C++ extension is not built", allow_module_level=True)

from fusedres.backends.cpu import engine
from fusedres.backends.cpu.engine import Algorithm
from tests.csrc.test_conv_engine import AWKWARD, LAYERS, NHWC, Case, guarded, suits, threads

ALGORITHMS = (Algorithm.DIRECT_F32, Algorithm.WINOGRAD_F32, Algorithm.DIRECT_BF16_AMX)

#: What the chunks of pixels must get right: several to an image with a shorter last one, several images
#: to one with some left over, and more channels than are copied at once.
CHUNKS = (
    Case("lines_left_over", 2, 20, 47, 51, 24, 3, 1, 1),
    Case("lines_left_over_s2", 2, 20, 47, 51, 24, 3, 2, 1),
    Case("images_left_over", 11, 16, 7, 7, 40, 3, 1, 1),
    Case("images_left_over_1x1", 11, 40, 9, 9, 20),
    Case("wide_row", 1, 16, 3, 601, 16, 3, 1, 1),
    Case("many_channels", 1, 1300, 17, 17, 30),
    Case("many_filters", 1, 30, 17, 17, 1300),
)


@pytest.fixture(params=ALGORITHMS, ids=lambda a: a.name.lower())
def algorithm(request: pytest.FixtureRequest) -> Algorithm:
    if not engine.runs(request.param) or engine.tile_isa(torch.float32) == "portable":
        pytest.skip(f"this CPU, build or FUSEDRES_CPU_ISA does not run {request.param.name}")
    return Algorithm(request.param)


def operands(case: Case, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, dy, scale, shift; about half of x's values are cut off by the ReLU."""
    x = torch.randn(case.n, case.c, case.h, case.w) * (0.1 + torch.rand(case.c, 1, 1))
    p, q = ((size + 2 * case.padding - case.r) // case.stride + 1 for size in (case.h, case.w))
    dy = torch.randn(case.n, case.k, p, q)
    scale, shift = torch.rand(case.c) + 0.5, torch.randn(case.c) * 0.1
    x, dy = (t.to(dtype).contiguous(memory_format=NHWC) for t in (x, dy))
    return x, dy, scale, shift


def shape_of(case: Case) -> tuple[int, int, int, int]:
    return case.k, case.c, case.r, case.r


def ours(
    case: Case,
    algorithm: Algorithm,
    x: Tensor,
    dy: Tensor,
    *affine: Tensor | None,
    channels_last: bool = False,
) -> Tensor:
    pair = (case.stride, case.stride), (case.padding, case.padding)
    return engine.wgrad(x, dy, *(affine or (None, None)), shape_of(case), *pair, algorithm, channels_last)


def plain(case: Case, x: Tensor, dy: Tensor) -> Tensor:
    w = torch.empty(shape_of(case), dtype=x.dtype)
    pair = (case.stride, case.stride), (case.padding, case.padding), (1, 1)
    dw: Tensor = torch.ops.aten.convolution_backward(
        dy, x, w, None, *pair, False, (0, 0), 1, (False, True, False)
    )[1]
    return dw


def activated(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """As the join kernel writes it: affine in fp32, rounded once."""
    return (x.float() * scale[:, None, None] + shift[:, None, None]).relu().to(x.dtype)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("case", LAYERS + AWKWARD + CHUNKS, ids=str)
def test_two_times_rule(case: Case, algorithm: Algorithm, count: int) -> None:
    if not suits(case, algorithm):
        pytest.skip("Winograd's F(2x2, 3x3) is for 3 x 3 filters of stride 1")
    x, dy, _, _ = operands(case, algorithm.dtype)
    with threads(count):
        dw = ours(case, algorithm, x, dy)
        if case.n == 0:
            assert not dw.any() and dw.shape == shape_of(case)
            return
        assert_within_two_x(
            dw, plain(case, x.double(), dy.double()), plain(case, x, dy), f"{case} {algorithm.name}"
        )
        assert_same_bits(ours(case, algorithm, x, dy), dw, f"{case} twice")
        as_weight = ours(case, algorithm, x, dy, channels_last=True)
        assert as_weight.is_contiguous(memory_format=NHWC)
        assert_same_bits(as_weight, dw, f"{case} channels_last")


@pytest.mark.parametrize("case", (*LAYERS[1:4], *AWKWARD[:-1], *CHUNKS), ids=str)
def test_activates_as_it_loads(case: Case, algorithm: Algorithm) -> None:
    """The bits of activating first, border included: it is zero, not relu(shift)."""
    if not suits(case, algorithm):
        pytest.skip("Winograd's F(2x2, 3x3) is for 3 x 3 filters of stride 1")
    x, dy, scale, shift = operands(case, algorithm.dtype)
    apart = ours(case, algorithm, activated(x, scale, shift).contiguous(memory_format=NHWC), dy)
    assert_same_bits(ours(case, algorithm, x, dy, scale, shift), apart, f"{case} {algorithm.name}")


@pytest.mark.parametrize("case", (*LAYERS[:3], *AWKWARD[:-1], *CHUNKS), ids=str)
def test_reads_nothing_beyond_its_operands(case: Case, algorithm: Algorithm) -> None:
    if not suits(case, algorithm):
        pytest.skip("Winograd's F(2x2, 3x3) is for 3 x 3 filters of stride 1")
    x, dy, _, _ = operands(case, algorithm.dtype)
    expected = ours(case, algorithm, x, dy)
    for count in (1, 2, 3):
        with threads(count):
            dw = ours(case, algorithm, guarded(x)[0], guarded(dy)[0])
        assert_same_bits(dw, expected, f"{case} among NaN, {count} threads")


def test_infinity_stays_where_it_is(algorithm: Algorithm) -> None:
    case = Case("values", 1, 40, 6, 6, 40)
    if not suits(case, algorithm):
        pytest.skip("Winograd mixes the pixels of a patch, as the forward's does")
    x, dy, _, _ = operands(case, algorithm.dtype)
    x[0, 3, 2, 2] = float("inf")
    dw = ours(case, algorithm, x, dy)
    assert (
        bool(dw[:, 3].isinf().all()) and bool(dw[:, :3].isfinite().all()) and bool(dw[:, 4:].isfinite().all())
    )


def test_refusals() -> None:
    if engine.tile_isa(torch.float32) == "portable":
        pytest.skip("weight gradients need AVX2")
    case = Case("refused", 1, 8, 6, 6, 8, 3, 1, 1)
    x, dy, scale, _ = operands(case, torch.float32)
    direct = Algorithm.DIRECT_F32
    with pytest.raises(RuntimeError, match="`x` must have the weight's 8 channels; got 4"):
        ours(case, direct, x[:, :4].contiguous(memory_format=NHWC), dy)
    with pytest.raises(RuntimeError, match=r"shape of the convolution's output; got \(1, 8, 5, 6\)"):
        ours(case, direct, x, dy[:, :, 1:].contiguous(memory_format=NHWC))
    with pytest.raises(RuntimeError, match="dtype of the algorithm"):
        engine.OPS.wgrad(x.bfloat16(), dy, None, None, shape_of(case), (1, 1), (1, 1), int(direct), True)
    with pytest.raises(RuntimeError, match="go together"):
        ours(case, direct, x, dy, scale, None)
    with pytest.raises(RuntimeError, match="cannot run algorithm 2"):
        ours(case, Algorithm.DIRECT_BF16_DOT, x.bfloat16(), dy.bfloat16())
    with pytest.raises(RuntimeError, match="cannot run algorithm 4"):
        ours(case, Algorithm.WINOGRAD4_F32, x, dy)
    with pytest.raises(RuntimeError, match="3 x 3 filter of stride 1"):
        ours(case._replace(stride=2), Algorithm.WINOGRAD_F32, x, dy)


def test_choice() -> None:
    """oneDNN keeps stems, groups, dilation, and fp32 layers that memory bounds."""
    one = (1, 1)
    wide = ((16, 256, 56, 56), torch.float32, (64, 256, 1, 1), one, (0, 0), one, 1)
    assert engine.choose(*wide, "wgrad") is None
    assert (
        engine.choose((16, 3, 224, 224), torch.float32, (64, 3, 7, 7), (2, 2), (3, 3), one, 1, "wgrad")
        is None
    )
    assert engine.choose((16, 64, 28, 28), torch.float32, (64, 2, 3, 3), one, one, one, 32, "wgrad") is None
    assert engine.choose((1, 64, 7, 7), torch.float32, (64, 64, 1, 1), one, (0, 0), one, 1, "wgrad") is None
    layer = ((16, 256, 14, 14), torch.float32, (256, 256, 3, 3))
    served = engine.tile_isa(torch.float32) != "portable"
    by_winograd = engine.choose(*layer, one, one, one, 1, "wgrad")
    assert by_winograd == (Algorithm.WINOGRAD_F32 if served else None)
    assert engine.choose(*layer, (2, 2), one, one, 1, "wgrad") == (Algorithm.DIRECT_F32 if served else None)
    if engine.runs(Algorithm.DIRECT_BF16_AMX):
        assert engine.choose(wide[0], torch.bfloat16, *wide[2:], "wgrad") == Algorithm.DIRECT_BF16_AMX
