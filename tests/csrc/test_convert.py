"""Activations from bf16 to fp32 and back, and the engine's training ops on bf16 that only fp32 serves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fusedres._build import extension_missing
from tests._parity import assert_same_bits

if extension_missing("_C") is not None:
    pytest.skip("the C++ extension is not built", allow_module_level=True)

from fusedres.backends.cpu import engine
from fusedres.backends.cpu.convert import converted
from fusedres.backends.cpu.engine import Algorithm
from fusedres.ops._registry import kernel
from tests.csrc.test_conv_engine import NHWC, guarded, threads

needs_training = pytest.mark.skipif(
    engine.tile_isa(torch.float32) == "portable", reason="training on the engine needs AVX2"
)

#: Less than a vector, ends of every length, several threads' lines, and what is written past the caches.
SHAPES = [(0, 3, 2, 2), (1, 1, 1, 1), (1, 7, 1, 1), (2, 5, 3, 7), (1, 33, 31, 17), (4, 256, 128, 96)]


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_conversions_are_torchs(shape: tuple[int, int, int, int], count: int) -> None:
    wide = (torch.randn(shape) * 10.0 ** torch.randint(-30, 30, shape)).contiguous(memory_format=NHWC)
    narrow = wide.bfloat16()
    with threads(count):
        assert_same_bits(converted(wide, torch.bfloat16), narrow, "narrowed")
        assert_same_bits(converted(narrow, torch.float32), narrow.float(), "widened")
        assert_same_bits(converted(guarded(narrow)[0], torch.float32), narrow.float(), "widened among NaN")
    assert converted(wide, torch.float32) is wide
    assert converted(narrow, torch.float32).is_contiguous(memory_format=NHWC)


def test_what_is_not_finite_and_ties() -> None:
    tie, above = 1 + 2.0**-8, 1 + 2.0**-8 + 2.0**-20
    values = [float("nan"), float("inf"), -float("inf"), -0.0, 3.4e38, 1e-45, tie, 3 * 2.0**-8 + 1, above]
    x = torch.tensor(values).reshape(1, -1, 1, 1).contiguous(memory_format=NHWC)
    narrow = converted(x, torch.bfloat16)
    assert bool(narrow[0, 0].isnan().all())
    assert_same_bits(narrow[:, 1:], x.bfloat16()[:, 1:], "narrowed")


def test_refusals() -> None:
    with pytest.raises(RuntimeError, match="`x` must be BFloat16; got Float"):
        torch.ops.fusedres_cpu.widened(torch.ones(1, 2, 3, 3).contiguous(memory_format=NHWC))
    with pytest.raises(RuntimeError, match="`x` must be channels_last"):
        torch.ops.fusedres_cpu.narrowed(torch.ones(1, 2, 3, 3))


def operands(*shapes: tuple[int, ...]) -> list[Tensor]:
    return [torch.randn(shape).bfloat16().contiguous(memory_format=NHWC) for shape in shapes]


@needs_training
@pytest.mark.parametrize("algorithm", [Algorithm.DIRECT_F32, Algorithm.WINOGRAD_F32])
def test_forward_and_gradients_round_once(algorithm: Algorithm) -> None:
    """On bf16 an fp32 algorithm gives what it gives on the same values in fp32, rounded."""
    one = (1, 1)
    x, dy, w = operands((2, 16, 9, 7), (2, 24, 9, 7), (24, 16, 3, 3))
    residual = torch.randn_like(dy)
    wide = engine.conv_once(x.float(), w.float(), residual.float(), one, one, algorithm)
    y = engine.conv_once(x, w, residual, one, one, algorithm)
    assert_same_bits(y, wide.bfloat16(), "conv_once")

    y, *statistics = engine.conv_once_stats(x, w, one, one, algorithm)
    for ours, of_rounded in zip(statistics, kernel("cpu", "bn_stats")(y), strict=True):
        assert_same_bits(ours, of_rounded, "the statistics of what is stored")

    turned = w.flip(2, 3).transpose(0, 1)
    before = (x, None, None, None, None, None)
    dz, _ = engine.conv_once_reduce(dy, turned, before, one, algorithm)
    dx = engine.conv_once(dy, turned, None, one, one, algorithm)
    assert_same_bits(dz, torch.where(x > 0, dx, 0), "conv_once_reduce")

    dw = engine.wgrad(x, dy, None, None, w.shape, one, one, algorithm, True)
    in_fp32 = engine.wgrad(x.float(), dy.float(), None, None, w.shape, one, one, algorithm, True)
    assert_same_bits(dw, in_fp32.bfloat16(), "wgrad")


@needs_training
def test_a_strided_dgrad_rounds_once() -> None:
    dy, w, add = operands((2, 24, 5, 4), (24, 16, 3, 3), (2, 16, 9, 7))
    geometry = add.shape, (2, 2), (1, 1), Algorithm.DIRECT_F32
    wide = engine.dgrad_strided(dy.float(), w.float(), add.float(), *geometry)
    assert_same_bits(engine.dgrad_strided(dy, w, add, *geometry), wide.bfloat16(), "dgrad_strided")
