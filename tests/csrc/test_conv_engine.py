"""The CPU convolution engine (csrc/cpu/conv): every algorithm against float64, wherever this CPU runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fusedres._build import extension_missing
from fusedres.cli.parity import FAST_FACTORS
from tests._parity import assert_same_bits, assert_within_two_x

if extension_missing("_C") is not None:
    pytest.skip("the C++ extension is not built", allow_module_level=True)

from fusedres.backends.cpu import engine
from fusedres.backends.cpu.engine import Algorithm

OPS = torch.ops.fusedres_cpu
NHWC = torch.channels_last


class Case(NamedTuple):
    """One convolution: x (n, c, h, w), filters (k, c / groups, r, r)."""

    name: str
    n: int
    c: int
    h: int
    w: int
    k: int
    r: int = 1
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1

    def __str__(self) -> str:
        return self.name

    @property
    def geometry(self) -> dict[str, int]:
        return {
            "stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups,
        }  # fmt: skip


#: ResNet's layers, channels and maps as they are, with few filters where many only repeat the same panels.
LAYERS = (
    Case("stem", 1, 3, 62, 62, 64, 7, 2, 3),
    Case("64_64_56", 1, 64, 56, 56, 64, 3, 1, 1),
    Case("64_256_56", 1, 64, 56, 56, 256),
    Case("256_64_56", 1, 256, 56, 56, 64),
    Case("128_128_56_s2", 1, 128, 56, 56, 64, 3, 2, 1),
    Case("256_512_56_s2", 1, 256, 56, 56, 96, 1, 2),
    Case("128_128_28", 2, 128, 28, 28, 64, 3, 1, 1),
    Case("512_128_28", 1, 512, 28, 28, 64),
    Case("256_256_14", 2, 256, 14, 14, 64, 3, 1, 1),
    Case("1024_256_14", 1, 1024, 14, 14, 64),
    Case("1024_2048_14_s2", 1, 1024, 14, 14, 64, 1, 2),
    Case("512_512_14_s2", 1, 512, 14, 14, 64, 3, 2, 1),
    Case("512_512_7", 2, 512, 7, 7, 64, 3, 1, 1),
    Case("2048_512_7", 2, 2048, 7, 7, 64),
)

#: Nothing a multiple of anything; one channel; one pixel; maps smaller than a tile; borders wider than usual.
AWKWARD = (
    Case("odd_channels", 3, 5, 13, 11, 33, 3, 1, 1),
    Case("two_columns", 2, 17, 10, 9, 3, 3, 2, 1),
    Case("one_channel", 1, 1, 5, 5, 1, 3, 1, 1),
    Case("one_pixel", 2, 7, 1, 1, 7),
    Case("one_pixel_3x3", 1, 40, 1, 1, 5, 3, 1, 1),
    Case("valid_padding", 1, 6, 9, 17, 50, 3),
    Case("five_by_five", 2, 6, 9, 17, 50, 5, 3, 2),
    Case("four_by_four", 1, 3, 20, 20, 70, 4, 2, 1),
    Case("padded_pointwise", 1, 4, 8, 8, 16, 1, 1, 3),
    Case("prime_map", 1, 130, 29, 31, 31),
    Case("stride_three", 1, 34, 23, 25, 65, 1, 3),
    Case("long_row", 1, 2, 3, 301, 34, 3, 1, 1),
    Case("no_images", 0, 8, 6, 6, 8, 3, 1, 1),
    # Eight panels and more: packed inputs, of 1 to 3 values over a multiple of 4, and 1 to 14 pixels a tile.
    Case("packed_pointwise", 2, 37, 9, 11, 260),
    Case("packed_pixel", 1, 6, 1, 1, 257),
    Case("packed_half_tile", 1, 23, 1, 5, 225),
    Case("packed_stride", 1, 130, 9, 13, 300, 1, 2),
    Case("packed_patches", 1, 37, 13, 11, 260, 3, 1, 1),
    Case("packed_patch", 1, 18, 2, 2, 257, 3, 1, 1),
    Case("packed_slices", 2, 71, 9, 9, 288, 3, 1, 1),
)

#: ResNeXt's groups of 4, 8, 16 and 32; groups whose channels and filters fit no panel; one channel a group.
GROUPED = (
    Case("32x4d_56", 1, 128, 28, 28, 128, 3, 1, 1, groups=32),
    Case("32x4d_28_s2", 2, 256, 14, 14, 256, 3, 2, 1, groups=32),
    Case("32x4d_14", 1, 512, 14, 14, 512, 3, 1, 1, groups=32),
    Case("32x4d_7", 2, 1024, 7, 7, 1024, 3, 1, 1, groups=32),
    Case("few_groups", 1, 96, 9, 7, 96, 3, 1, 2, 2, groups=6),
    Case("quads_valid", 3, 32, 8, 5, 32, 3, groups=8),
    Case("quads_pointwise", 2, 32, 5, 5, 32, groups=4),
    Case("part_of_a_panel", 2, 48, 7, 9, 48, 3, 1, 1, groups=12),
    Case("odd_groups", 2, 30, 9, 9, 45, 3, 1, 1, groups=15),
    Case("pointwise_groups", 1, 64, 6, 5, 512, groups=2),
    Case("more_pointwise_groups", 2, 512, 5, 5, 512, groups=16),
    Case("wide_groups", 1, 144, 6, 5, 150, 3, 1, 1, groups=3),
    Case("more_filters", 1, 4, 6, 6, 96, 3, 1, 1, groups=2),
    Case("more_channels", 1, 400, 6, 6, 100, 3, 1, 1, groups=100),
    Case("depthwise", 2, 70, 9, 9, 70, 3, 2, 1, groups=70),
    Case("depthwise_5x5", 1, 10, 11, 9, 10, 5, 1, 4, 2, groups=10),
)

#: Taps apart: as in a segmentation network's last stages, a stem's few channels, borders of any width.
DILATED = (
    Case("dilated", 1, 64, 14, 14, 64, 3, 1, 2, 2),
    Case("dilated_s2", 2, 40, 13, 15, 33, 3, 2, 4, 4),
    Case("dilated_stem", 1, 3, 30, 30, 40, 7, 2, 6, 2),
    Case("dilated_valid", 1, 7, 12, 12, 5, 3, 1, 0, 3),
)

NOT_FOR = "Winograd's algorithms are for 3 x 3 filters of stride 1, products in parts for one group"


@pytest.fixture(params=Algorithm, ids=lambda a: a.name.lower())
def algorithm(request: pytest.FixtureRequest) -> Algorithm:
    if not engine.runs(request.param):
        pytest.skip(f"this CPU, build or FUSEDRES_CPU_ISA does not run {request.param.name}")
    return Algorithm(request.param)


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def operands(case: Case, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, w, scale, shift as trained networks have them: activations ≥ 0, unequal channels."""
    x = torch.randn(case.n, case.c, case.h, case.w).relu() * (0.1 + torch.rand(case.c, 1, 1))
    inputs = case.c // case.groups
    w = torch.randn(case.k, inputs, case.r, case.r) / (inputs * case.r**2) ** 0.5
    scale, shift = torch.rand(case.k) + 0.5, torch.randn(case.k)
    return x.to(dtype).contiguous(memory_format=NHWC), w.to(dtype), scale, shift


def run(case: Case, algorithm: Algorithm, x: Tensor, w: Tensor, *rest: object) -> Tensor:
    pair = (case.stride, case.stride), (case.padding, case.padding)
    packed = OPS.conv_pack(w, *pair, int(algorithm), (case.dilation, case.dilation), case.groups)
    out: Tensor = OPS.conv_packed(x, packed, *rest)
    return out


def plain(case: Case, x: Tensor, w: Tensor, scale: Tensor, shift: Tensor, residual: Tensor | None) -> Tensor:
    """Plain PyTorch, in float64 or in the operands' dtype with its rounding after each op."""
    y = F.conv2d(x, w, **case.geometry)
    y = y * scale.to(x.dtype)[:, None, None] + shift.to(x.dtype)[:, None, None]
    return (y if residual is None else y + residual).relu()


def suits(case: Case, algorithm: Algorithm) -> bool:
    winograd = (case.r, case.stride, case.dilation, case.groups) == (3, 1, 1, 1)
    return winograd if algorithm.winograd else not (algorithm.in_parts and case.groups > 1)


class Allowance(NamedTuple):
    """What assert_within_two_x allows an algorithm: see docs/numerics.md, "Precision fast"."""

    slack: float = 0.0
    factors: tuple[float, float] = (2.0, 2.0)


def allowance(case: Case, algorithm: Algorithm, x: Tensor, w: Tensor) -> Allowance:
    if algorithm not in engine.FAST or case.n == 0:
        return Allowance()
    if algorithm == Algorithm.DIRECT2_F32_AMX:  # up to 2^-15 of each product
        products = F.conv2d(x.double().abs(), w.double().abs(), **case.geometry)
        return Allowance(2**-15 * products.max().item())
    if algorithm == Algorithm.WINOGRAD2_F32_AMX:
        # The same of the products of transforms: an output is the sum of 9 points', whose operands are at
        # most 2 and 1 times as long as the patch and the filter.
        return Allowance(9 * 2 * 2**-15 * window_times_filter(case, x, w, 4))
    if algorithm == Algorithm.WINOGRAD_BF16_DOT:  # the same, up to 2^-8 of each transform
        return Allowance(9 * 2 * 2**-7 * window_times_filter(case, x, w, 4))
    if case.c >= 40 and min(case.h, case.w) >= 6:
        return Allowance(0.0, FAST_FACTORS)
    # A few products, or windows that are mostly border, are nearly exact in direct convolution. Here each
    # product is rounded beside all others of its 6 x 6 patch: an output's error is that of a sum over the
    # patch, amplified by up to 7.5 at its corners.
    eps = torch.finfo(torch.float32).eps
    return Allowance(7.5 * eps * window_times_filter(case, x, w, 6) / case.c**0.5, FAST_FACTORS)


def window_times_filter(case: Case, x: Tensor, w: Tensor, side: int) -> float:
    """The product of the largest norms of a ``side`` x ``side`` patch of the input and of a filter."""
    pixels = F.pad(x.double().square().sum(1, keepdim=True), (side - 1,) * 4)
    patch = side**2 * F.avg_pool2d(pixels, side, 1).max().item()
    filters = w.double().square().sum((1, 2, 3)).max().item()
    return float((patch * filters) ** 0.5)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("case", LAYERS + AWKWARD + GROUPED + DILATED, ids=str)
def test_two_times_rule(case: Case, algorithm: Algorithm, count: int) -> None:
    if not suits(case, algorithm):
        pytest.skip(NOT_FOR)
    dtype = algorithm.dtype
    x, w, scale, shift = operands(case, dtype)
    shape = F.conv2d(x.float(), w.float(), **case.geometry).shape
    residual = torch.randn(shape).to(dtype).contiguous(memory_format=NHWC)
    allowed = allowance(case, algorithm, x, w * scale.to(dtype)[:, None, None, None])
    with threads(count):
        for add in (None, residual):
            ours = run(case, algorithm, x, w, scale, shift, add, True)
            exact = plain(
                case,
                x.double(),
                w.double(),
                scale.double(),
                shift.double(),
                None if add is None else add.double(),
            )
            assert ours.is_contiguous(memory_format=NHWC)
            if case.n:
                torchs = plain(case, x, w, scale, shift, add)
                assert_within_two_x(ours, exact, torchs, f"{case} {algorithm.name}", *allowed)
            assert_same_bits(ours, run(case, algorithm, x, w, scale, shift, add, True), f"{case} twice")


@pytest.mark.parametrize("case", AWKWARD[:6] + GROUPED[4:6], ids=str)
def test_without_affine_and_relu(case: Case, algorithm: Algorithm) -> None:
    if not suits(case, algorithm):
        pytest.skip(NOT_FOR)
    x, w, _, _ = operands(case, algorithm.dtype)
    ours = run(case, algorithm, x, w, None, None, None, False)
    exact = F.conv2d(x.double(), w.double(), **case.geometry)
    assert (ours < 0).any() or case.k == 1
    torchs = F.conv2d(x, w, **case.geometry)
    assert_within_two_x(ours, exact, torchs, f"{case} {algorithm.name}", *allowance(case, algorithm, x, w))


def guarded(x: Tensor) -> tuple[Tensor, Tensor]:
    """``x`` inside a buffer of NaN: what is read beyond it poisons the result."""
    margin = 4096
    buffer = torch.full((x.numel() + 2 * margin,), float("nan"), dtype=x.dtype)
    inside = buffer[margin : margin + x.numel()]
    n, c, h, w = x.shape
    view = inside.view(n, h, w, c).permute(0, 3, 1, 2)
    view.copy_(x)
    return view, buffer


@pytest.mark.parametrize("case", LAYERS[:3] + AWKWARD[:-1] + GROUPED + DILATED, ids=str)
def test_reads_nothing_beyond_its_operands(case: Case, algorithm: Algorithm) -> None:
    if not suits(case, algorithm):
        pytest.skip(NOT_FOR)
    x, w, scale, shift = operands(case, algorithm.dtype)
    expected = run(case, algorithm, x, w, scale, shift, None, True)
    residual = torch.randn(expected.shape).to(x.dtype).contiguous(memory_format=NHWC)
    expected = run(case, algorithm, x, w, scale, shift, residual, True)
    for count in (1, 2):
        with threads(count):
            ours = run(case, algorithm, guarded(x)[0], w, scale, shift, guarded(residual)[0], True)
        assert_same_bits(ours, expected, f"{case} among NaN, {count} threads")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity_pass(algorithm: Algorithm, value: float) -> None:
    case = Case("values", 1, 8, 6, 6, 8, 3, 1, 1)
    x, w, scale, shift = operands(case, algorithm.dtype)
    x[0, 3, 2, 2] = value
    ours = run(case, algorithm, x, w, scale, shift, None, False).isfinite()
    reached = ~F.conv2d(x.float(), w.float(), padding=1).isfinite()
    assert not ours[reached].any()
    if algorithm.winograd:  # to all outputs of each 4 x 4 or 6 x 6 patch that the pixel lies in
        reached = torch.zeros_like(reached)
        reached[:, :, :4, :4] = True
    assert bool(ours[~reached].all())
    if value != value:
        assert run(case, algorithm, x, w, scale, shift, None, True)[:, :, 1:4, 1:4].isnan().all()


def test_values_that_are_no_sum_of_parts(algorithm: Algorithm) -> None:
    """An infinity, and what rounds to one in bf16, come out as NaN and reach no further than a NaN does."""
    if not algorithm.in_parts:
        pytest.skip("multiplies whole values")
    case = Case("values", 1, 8, 6, 6, 8, 3, 1, 1)
    x, w, scale, shift = operands(case, algorithm.dtype)
    reached = F.conv2d(F.pad(torch.ones(1, 1, 1, 1), (2, 3, 2, 3)), torch.ones(1, 1, 3, 3), padding=1) > 0
    for value in (float("inf"), -float("inf"), torch.finfo(torch.float32).max):
        x[0, 3, 2, 2] = value
        ours = run(case, algorithm, x, w, scale, shift, None, True)
        assert bool(ours.isnan()[reached.expand_as(ours)].all())
        if not algorithm.winograd:
            assert bool(ours.isfinite()[~reached.expand_as(ours)].all())


class BlockCase(NamedTuple):
    name: str
    n: int
    channels: int
    width: int
    out: int
    size: int
    stride: int = 1
    groups: int = 1

    def __str__(self) -> str:
        return self.name


BLOCKS = (
    BlockCase("identity", 1, 64, 16, 64, 14),
    BlockCase("images_apart", 5, 64, 32, 64, 9),
    BlockCase("downsample", 3, 48, 24, 96, 13, 2),
    BlockCase("awkward", 2, 10, 7, 22, 11, 2),
    BlockCase("projection", 2, 32, 16, 64, 8),
    BlockCase("resnext", 3, 64, 128, 128, 14, 2, 32),
    BlockCase("resnext_identity", 1, 48, 64, 48, 7, 1, 4),
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("case", BLOCKS, ids=str)
def test_bottleneck_equals_its_convolutions(case: BlockCase, count: int, dtype: torch.dtype) -> None:
    """The block op is its convolutions bit for bit: it only keeps the inner activations elsewhere."""
    joins = case.channels != case.out or case.stride != 1
    geometry = [(1, 1, 0, 1), (3, case.stride, 1, case.groups), (1, 1, 0, 1), (1, case.stride, 0, 1)]
    ins = [case.channels, case.width, case.width, case.channels]
    outs = [case.width, case.width, case.out, case.out]
    size = (case.size - 1) // case.stride + 1
    sizes = [case.size, case.size, size, case.size]
    x = torch.randn(case.n, case.channels, case.size, case.size).to(dtype).contiguous(memory_format=NHWC)
    convs = []
    for (r, stride, padding, groups), c, k, hw in list(zip(geometry, ins, outs, sizes, strict=True))[
        : 4 if joins else 3
    ]:
        w = (torch.randn(k, c // groups, r, r) / (c // groups * r * r) ** 0.5).to(dtype)
        pair = (stride, stride), (padding, padding)
        chosen = engine.choose((case.n, c, hw, hw), dtype, w.shape, *pair, (1, 1), groups)
        if chosen is None or chosen.dtype != dtype:  # by rule: oneDNN, or bf16 in fp32
            ours = (Algorithm.WINOGRAD_F32, Algorithm.DIRECT_F32, Algorithm.DIRECT_BF16_DOT)
            served = (a for a in ours if engine.takes(a, w.shape, pair[0], (1, 1), groups))
            chosen = next(a for a in served if a.dtype == dtype)
        convs.append(
            (OPS.conv_pack(w, *pair, int(chosen), (1, 1), groups), torch.rand(k) + 0.5, torch.randn(k))
        )
    packed, scales, shifts = (list(column) for column in zip(*convs, strict=True))
    with threads(count):
        whole = OPS.blocks_packed(x, packed, scales, shifts, [len(packed) - joins], [int(joins)])
        inner = OPS.conv_packed(x, *convs[0], None, True)
        inner = OPS.conv_packed(inner, *convs[1], None, True)
        skip = OPS.conv_packed(x, *convs[3], None, False) if joins else x
        apart = OPS.conv_packed(inner, *convs[2], skip, True)
    assert_same_bits(whole, apart, f"{case} {dtype}")


#: Of each block the weights, scales and shifts of its convolutions.
Operands = list[tuple[list[Tensor], ...]]


def packed_blocks(
    *blocks: list[tuple[int, int, int, int, int]], dtype: torch.dtype = torch.float32
) -> Operands:
    """Blocks of convolutions (c, k, r, stride, groups), packed; in fp32 by Winograd where it can be."""
    direct = Algorithm.DIRECT_F32 if dtype == torch.float32 else Algorithm.DIRECT_BF16_DOT

    def conv(c: int, k: int, r: int, stride: int, groups: int) -> tuple[Tensor, Tensor, Tensor]:
        w = (torch.randn(k, c // groups, r, r) / (c // groups * r * r) ** 0.5).to(dtype)
        winograd = dtype == torch.float32 and (r, stride, groups) == (3, 1, 1)
        algorithm = int(Algorithm.WINOGRAD_F32 if winograd else direct)
        packed = OPS.conv_pack(w, (stride, stride), (r // 2, r // 2), algorithm, (1, 1), groups)
        return packed, torch.rand(k) + 0.5, torch.randn(k)

    return [
        tuple(list(column) for column in zip(*(conv(*shape) for shape in block), strict=True))
        for block in blocks
    ]


def in_one_call(blocks: Operands) -> list[list[Tensor]]:
    """The operands of all blocks, one after the other."""
    return [[operand for operands in column for operand in operands] for column in zip(*blocks, strict=True)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_blocks_in_one_call_equal_them_one_by_one(n: int, count: int, dtype: torch.dtype) -> None:
    """More threads than images go through all blocks together; else block by block."""
    blocks = packed_blocks(
        [(24, 16, 1, 1, 1), (16, 16, 3, 1, 1), (16, 40, 1, 1, 1), (24, 40, 1, 1, 1)],
        [(40, 16, 1, 1, 1), (16, 16, 3, 1, 1), (16, 40, 1, 1, 1)],
        [(40, 50, 3, 2, 1), (50, 50, 3, 1, 1), (40, 50, 1, 2, 1)],
        [(50, 50, 3, 1, 1), (50, 50, 3, 1, 1)],
        [(50, 260, 1, 1, 1), (260, 260, 3, 2, 1), (260, 50, 1, 1, 1), (50, 50, 1, 2, 1)],
        dtype=dtype,
    )
    convs, downsamples = [3, 3, 2, 2, 3], [1, 0, 1, 0, 1]
    x = torch.randn(n, 24, 11, 9).to(dtype).contiguous(memory_format=NHWC)
    with threads(count):
        whole = OPS.blocks_packed(x, *in_one_call(blocks), convs, downsamples)
        apart = x
        for block, length, joins in zip(blocks, convs, downsamples, strict=True):
            apart = OPS.blocks_packed(apart, *block, [length], [joins])
    assert_same_bits(whole, apart, f"{n} images, {count} threads")


@pytest.mark.skipif(
    engine.tile_isa(torch.float32) == "avx512", reason="only vector tiles round (AVX2, portable)"
)
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_rounded_blocks_are_those_that_bf16_is_stored_between(n: int, count: int) -> None:
    """Each block's output is rounded where it is written: by direct tiles, Winograd's and groups'."""
    blocks = packed_blocks(
        # Ends with sums that moved to a total.
        [(24, 16, 1, 1, 1), (16, 300, 3, 1, 1), (300, 72, 1, 1, 1), (24, 72, 1, 1, 1)],
        [(72, 16, 1, 1, 1), (16, 16, 3, 2, 1), (16, 50, 1, 1, 1), (72, 50, 1, 2, 1)],
        [(50, 50, 3, 1, 1), (50, 50, 3, 1, 1)],  # ends with Winograd's
        [(50, 64, 3, 1, 1), (64, 64, 3, 1, 8), (50, 64, 1, 1, 1)],  # with a tile of narrow groups
        [(64, 64, 3, 1, 1), (64, 64, 3, 1, 1)],
    )
    joins = [1, 1, 0, 1, 0]
    convs = [len(block[0]) - skips for block, skips in zip(blocks, joins, strict=True)]
    x = torch.randn(n, 24, 11, 9).contiguous(memory_format=NHWC)
    with threads(count):
        whole = OPS.blocks_packed(x, *in_one_call(blocks), convs, joins, True)
        apart = x
        for block, length, skips in zip(blocks, convs, joins, strict=True):
            apart = OPS.blocks_packed(apart, *block, [length], [skips]).bfloat16().float()
    assert whole.dtype == torch.float32
    assert_same_bits(whole, apart, f"{n} images, {count} threads")


@pytest.mark.skipif(
    engine.tile_isa(torch.float32) == "avx512", reason="only vector tiles round (AVX2, portable)"
)
@pytest.mark.parametrize("last", [1, 3], ids=["direct", "winograd"])
def test_rounding_keeps_what_is_not_finite(last: int) -> None:
    """NaN stays NaN, an infinity one, and what bf16 cannot hold becomes one."""
    (block,) = packed_blocks([(16, 16, 1, 1, 1), (16, 16, last, 1, 1)])
    _, _, shifts = block
    shifts[-1][:3] = torch.tensor([float("inf"), float("nan"), torch.finfo(torch.float32).max])
    x = torch.randn(1, 16, 12, 12).contiguous(memory_format=NHWC)
    whole = OPS.blocks_packed(x, *block, [2], [0], True)
    apart = OPS.blocks_packed(x, *block, [2], [0]).bfloat16().float()
    assert whole[:, 1].isnan().all() and whole[:, (0, 2)].isinf().all()
    assert torch.equal(whole.isnan(), apart.isnan())
    assert_same_bits(whole.nan_to_num(posinf=float("inf")), apart.nan_to_num(posinf=float("inf")), f"{last}")


@pytest.mark.skipif(engine.tile_isa(torch.float32) != "avx512", reason="the other tiles round")
@pytest.mark.parametrize("groups", [1, 8], ids=["dense", "narrow_groups"])
def test_tiles_that_cannot_round_refuse_to(groups: int) -> None:
    (block,) = packed_blocks([(32, 32, 1, 1, groups), (32, 32, 1, 1, groups)])
    with pytest.raises(RuntimeError, match="`rounds` needs weights for fp32's tiles"):
        OPS.blocks_packed(torch.randn(1, 32, 5, 5).contiguous(memory_format=NHWC), *block, [2], [0], True)


def test_rounds_is_for_fp32_alone() -> None:
    """Tiles of bf16 round whatever they store: nothing is left to ask for."""
    (block,) = packed_blocks([(8, 8, 1, 1, 1), (8, 8, 1, 1, 1)], dtype=torch.bfloat16)
    x = torch.randn(1, 8, 5, 5).bfloat16().contiguous(memory_format=NHWC)
    with pytest.raises(RuntimeError, match="`rounds` needs `x` in float32; got BFloat16"):
        OPS.blocks_packed(x, *block, [2], [0], True)


@pytest.mark.parametrize(("n", "channels", "size"), [(28, 128, 8), (28, 128, 7), (44, 512, 9), (31, 256, 14)])
def test_parts_of_a_batch_share_no_scratch(n: int, channels: int, size: int) -> None:
    """Winograd's scratch does not grow evenly with the images: seven may need more than eight."""
    w = torch.randn(channels, channels, 3, 3) / (channels * 9) ** 0.5
    packed = OPS.conv_pack(w, (1, 1), (1, 1), int(Algorithm.WINOGRAD_F32))
    vectors = [torch.rand(channels) + 0.5, torch.randn(channels)]
    x = torch.randn(n, channels, size, size).contiguous(memory_format=NHWC)
    operands = ([packed] * 2, [vectors[0]] * 2, [vectors[1]] * 2)
    with threads(2):
        whole = OPS.blocks_packed(x, *operands, [2], [0])
        inner = OPS.conv_packed(x, packed, *vectors, None, True)
        apart = OPS.conv_packed(inner, packed, *vectors, x, True)
    assert_same_bits(whole, apart, f"{n} images of {channels} x {size} x {size}")


def test_refused_blocks() -> None:
    x = torch.randn(1, 8, 5, 5).contiguous(memory_format=NHWC)
    packed = OPS.conv_pack(torch.randn(8, 8, 1, 1), (1, 1), (0, 0), int(Algorithm.DIRECT_F32))
    vector = torch.ones(8)
    for operands, convs, downsamples, message in (
        (2, [2], [], "as many `downsamples` as `convs`"),
        (0, [], [], "a block at least"),
        (4, [4], [0], "2 or 3 convolutions and 0 or 1 downsamples; got 4 and 0"),
        (2, [2], [2], "got 2 and 2"),
        (3, [2], [0], "got 3, 3 and 3 for 2"),
        (3, [2, 2], [0, 0], "got 3, 3 and 3 for 4"),
    ):
        with pytest.raises(RuntimeError, match=message):
            OPS.blocks_packed(
                x, [packed] * operands, [vector] * operands, [vector] * operands, convs, downsamples
            )


#: Shared out by images' pixels, by panels whose number no thread count divides, and (1 x 1) by few pixels.
SHARED = (
    Case("pixels", 3, 40, 15, 15, 80, 3, 1, 1),
    Case("panels", 1, 512, 7, 7, 224, 3, 1, 1),
    Case("few_pixels", 1, 96, 5, 3, 40, 3, 1, 1),
    Case("groups", 1, 128, 9, 9, 128, 3, 1, 1, groups=16),
    # Dense maps are cut otherwise for every number of threads; sums of more than one chain.
    Case("dense", 1, 160, 14, 14, 96),
    Case("dense_long", 2, 1100, 7, 7, 70),
)


@pytest.mark.parametrize("case", SHARED, ids=str)
def test_thread_counts_agree(case: Case, algorithm: Algorithm) -> None:
    """Threads share out whole sums, so neither their number nor who computes what changes a bit."""
    if not suits(case, algorithm):
        pytest.skip(NOT_FOR)
    x, w, scale, shift = operands(case, algorithm.dtype)
    results = []
    for count in (1, 2, 3, 5):
        with threads(count):
            results.append(run(case, algorithm, x, w, scale, shift, None, True))
    for count, result in zip((2, 3, 5), results[1:], strict=True):
        assert_same_bits(result, results[0], f"{case}, {count} threads")


ALONE = """
import sys, torch
import fusedres
torch.set_num_threads(3)
x, packed, path = torch.load(sys.argv[1])
torch.save(torch.ops.fusedres_cpu.conv_packed(x, packed, None, None, None, True), path)
"""


def test_threads_that_never_come(algorithm: Algorithm, tmp_path: Path) -> None:
    """OpenMP may give fewer threads than were asked for: those that come do the work of all."""
    case = SHARED[0]
    x, w, *_ = operands(case, algorithm.dtype)
    packed = OPS.conv_pack(w, (1, 1), (1, 1), int(algorithm))
    expected = OPS.conv_packed(x, packed, None, None, None, True)
    given, made = tmp_path / "given.pt", tmp_path / "made.pt"
    torch.save((x, packed, str(made)), given)
    subprocess.run(
        [sys.executable, "-c", ALONE, str(given)],
        env={**os.environ, "OMP_THREAD_LIMIT": "1"},
        check=True,
        timeout=300,
    )
    assert_same_bits(torch.load(made), expected, "one thread of three")


def test_two_callers(algorithm: Algorithm) -> None:
    """Python threads that call at once share no scratch memory and no phase."""
    case = SHARED[1]
    x, w, scale, shift = operands(case, algorithm.dtype)
    expected = run(case, algorithm, x, w, scale, shift, None, True)
    with threads(2), ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(run, case, algorithm, x, w, scale, shift, None, True) for _ in range(16)]
        for call in calls:
            assert_same_bits(call.result(), expected, "beside other callers")


#: Where the header of packed weights (``csrc/cpu/conv/packed.h``) has the filters of a pass, in 8 bytes each.
PASS = 5


def test_refusals() -> None:
    w = torch.randn(8, 4, 3, 3)
    x = torch.randn(1, 4, 6, 6).contiguous(memory_format=NHWC)
    packed = OPS.conv_pack(w, (1, 1), (1, 1), int(Algorithm.DIRECT_F32))
    with pytest.raises(RuntimeError, match="made by conv_pack"):
        OPS.conv_packed(x, packed.clone().zero_(), None, None, None, True)
    with pytest.raises(RuntimeError, match="made by conv_pack"):
        OPS.conv_packed(x, packed[:-4], None, None, None, True)
    elsewhere = packed.clone()
    elsewhere.view(torch.int64)[PASS] *= 2  # as another instruction set's tiles read weights
    with pytest.raises(RuntimeError, match="packed for an instruction set that this process does not use"):
        OPS.conv_packed(x, elsewhere, None, None, None, True)
    with pytest.raises(RuntimeError, match="4 input channels; got 5"):
        OPS.conv_packed(
            torch.randn(1, 5, 6, 6).contiguous(memory_format=NHWC), packed, None, None, None, True
        )
    with pytest.raises(RuntimeError, match="`x` must have the dtype"):
        OPS.conv_packed(x.bfloat16(), packed, None, None, None, True)
    with pytest.raises(RuntimeError, match="stride 1"):
        OPS.conv_pack(w, (2, 2), (1, 1), int(Algorithm.WINOGRAD_F32))
    with pytest.raises(RuntimeError, match="algorithm 9"):
        OPS.conv_pack(w, (1, 1), (1, 1), 9)
    with pytest.raises(RuntimeError, match="one shape"):
        vector = torch.ones(8)
        other = OPS.conv_pack(torch.randn(8, 8, 1, 1), (1, 1), (0, 0), 0)
        OPS.blocks_packed(x, [packed, other], [vector] * 2, [vector] * 2, [2], [0])


def test_refused_geometries() -> None:
    w, one = torch.randn(8, 4, 3, 3), (1, 1)
    with pytest.raises(RuntimeError, match="`groups` must divide `w`'s 8 filters; got 3"):
        OPS.conv_pack(w, one, one, int(Algorithm.DIRECT_F32), one, 3)
    packed = OPS.conv_pack(w, one, one, int(Algorithm.DIRECT_F32), one, 2)
    with pytest.raises(RuntimeError, match="8 input channels; got 4"):
        OPS.conv_packed(
            torch.randn(1, 4, 6, 6).contiguous(memory_format=NHWC), packed, None, None, None, True
        )
    for dilation, groups in (((2, 2), 1), (one, 2)):
        with pytest.raises(RuntimeError, match="dilation 1, 1 group"):
            OPS.conv_pack(w, one, one, int(Algorithm.WINOGRAD_F32), dilation, groups)


@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "message"),
    [
        ((), (1, 1), (1, 1), r"`stride` must be two numbers of 1 or more; got \(\)"),
        ((1,), (1, 1), (1, 1), r"`stride` must be two numbers of 1 or more; got \(1\)"),
        ((0, 1), (1, 1), (1, 1), r"`stride` must be two numbers of 1 or more; got \(0, 1\)"),
        ((1, 1), (1, -1), (1, 1), r"`padding` must be two numbers of 0 or more; got \(1, -1\)"),
        ((1, 1), (1, 1, 1), (1, 1), r"`padding` must be two numbers of 0 or more; got \(1, 1, 1\)"),
        ((1, 1), (1, 1), (0, 0), r"`dilation` must be two numbers of 1 or more; got \(0, 0\)"),
    ],
)
def test_numbers_that_no_convolution_has(
    stride: tuple[int, ...], padding: tuple[int, ...], dilation: tuple[int, ...], message: str
) -> None:
    w, direct = torch.randn(8, 4, 3, 3), int(Algorithm.DIRECT_F32)
    x, dy = (torch.randn(1, c, 6, 6).contiguous(memory_format=NHWC) for c in (4, 8))
    with pytest.raises(RuntimeError, match="conv_pack: " + message):
        OPS.conv_pack(w, stride, padding, direct, dilation)
    if dilation != (1, 1):
        return
    with pytest.raises(RuntimeError, match="conv_once: " + message):
        OPS.conv_once(x, w, None, stride, padding, direct)
    with pytest.raises(RuntimeError, match="dgrad_strided: " + message):
        OPS.dgrad_strided(dy, w, None, x.shape, stride, padding, direct)
    with pytest.raises(RuntimeError, match="wgrad: " + message):
        OPS.wgrad(x, dy, None, None, w.shape, stride, padding, direct, True)
