"""The C++ kernels themselves: the same bits on every ISA, thread count and run; statistics; refusals."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from fusedres import ops
from fusedres._build import extension_missing
from fusedres.ops._registry import kernel
from tests._parity import assert_within_two_x
from tests.csrc import every_kernel

pytestmark = pytest.mark.skipif(extension_missing("_C") is not None, reason=str(extension_missing("_C")))

#: What each capability that torch reports includes, and the names of FUSEDRES_CPU_ISA.
RUNS = {"DEFAULT": ["portable"], "AVX2": ["portable", "avx2"], "AVX512": ["portable", "avx2", "avx512"]}
ISAS = RUNS.get(torch.backends.cpu.get_cpu_capability(), ["portable"])

ROOT = Path(__file__).resolve().parents[2]


def on_isa(isa: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", every_kernel.__name__],
        env={**os.environ, "FUSEDRES_CPU_ISA": isa, "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def expected() -> dict[str, str]:
    return every_kernel.digests()


@pytest.mark.parametrize("isa", ISAS)
def test_same_bits_on_every_isa(isa: str, expected: dict[str, str]) -> None:
    """A lane is a channel, or one of 16 sums, and no product is contracted with its sum."""
    done = on_isa(isa)
    assert done.returncode == 0, done.stderr
    chosen, *lines = done.stdout.splitlines()
    assert chosen == isa
    assert dict(line.split(": ") for line in lines) == expected


def test_an_unknown_isa_is_refused_by_name() -> None:
    done = on_isa("AVX2")
    assert done.returncode != 0
    assert "FUSEDRES_CPU_ISA: must be portable, avx2 or avx512; got AVX2" in done.stderr


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_same_bits_on_any_number_of_threads(threads: int, expected: dict[str, str]) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert every_kernel.digests() == expected
    finally:
        torch.set_num_threads(before)


def statistics(y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    mean, var, *_ = ops.bn_finalize(*ops.bn_stats(y, backend="cpu"), backend="cpu")
    return mean, var


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("value", [100.0, 0.1, -3e4])
def test_a_constant_channel_has_no_variance(value: float, dtype: torch.dtype) -> None:
    y = torch.full((3, 20, 29, 31), value).to(dtype)
    mean, var = statistics(y)
    assert torch.equal(var, torch.zeros(20))
    assert torch.equal(mean, y[0, :, 0, 0].float())


def test_a_constant_channel_comes_out_as_beta() -> None:
    y, beta = torch.full((2, 9, 13, 11), 100.0), torch.randn(9)
    _, _, _, scale, shift = ops.bn_finalize(*ops.bn_stats(y, backend="cpu"), None, beta, backend="cpu")
    out = ops.affine_add_act(y, scale, shift, relu=False, backend="cpu")
    # shift = beta - 100 * scale, scale = 1 / sqrt(1e-5): beta keeps what is left of 24 bits beside 31623
    assert (out[0, :, 0, 0] - beta).abs().max() <= 31623 * 2.0**-24


@pytest.mark.parametrize("offset", [0.0, 1e3, -1e5])
def test_a_large_mean_leaves_the_variance_right(offset: float) -> None:
    """Chan's merge of shifted sums: Σx² − (Σx)²/n in fp32 would have no digit left at 1e5."""
    y = (torch.randn(2, 21, 41, 43) + offset).contiguous(memory_format=torch.channels_last)
    mean, var = statistics(y)
    exact = y.double().transpose(0, 1).flatten(1)
    eps = torch.finfo(torch.float32).eps
    assert ((mean - exact.mean(1)).abs() <= eps * exact.mean(1).abs() + eps / 10).all()
    # The partial means are fp32, each off by at most u = eps / 2 of itself. That shifts the variance between
    # the chunks, which is at most the whole, by 2 std u |mean| + (u mean)^2; the sums add a few eps.
    off = eps / 2 * exact.mean(1).abs()
    true = exact.var(1, correction=0)
    assert ((var - true).abs() <= 4 * eps * true + 2 * true.sqrt() * off + off**2).all()


def test_an_outlier_in_the_first_row_costs_no_digits() -> None:
    """The first row is the first shift; a bad one must not spoil the sums that follow."""
    y = torch.randn(1, 8, 64, 64)
    y[:, :, 0, 0] = 1e4
    _, var = statistics(y)
    exact = y.double().transpose(0, 1).flatten(1).var(1, correction=0)
    assert ((var - exact).abs() <= 4 * torch.finfo(torch.float32).eps * exact).all()


def test_counts_cover_every_value() -> None:
    for shape in every_kernel.SHAPES:
        y = every_kernel.activation(shape, torch.float32)
        count, mean, m2 = kernel("cpu", "bn_stats")(y)
        assert count.sum() == shape[0] * shape[2] * shape[3]
        assert mean.shape == m2.shape == (*count.shape, shape[1])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_vectors_of_any_float_are_read_as_fp32(dtype: torch.dtype) -> None:
    y = every_kernel.activation((2, 7, 5, 3), torch.float32)
    s, t = (torch.randn(14).to(dtype)[::2] for _ in range(2))
    run = kernel("cpu", "affine_add_act")
    assert torch.equal(
        run(y, s, t, None, None, None, True), run(y, s.float(), t.float(), None, None, None, True)
    )


def test_nan_passes_through_relu_and_pool() -> None:
    y = torch.ones(1, 2, 4, 4).contiguous(memory_format=torch.channels_last)
    y[0, 0, 1, 1] = torch.nan
    one, zero = torch.ones(2), torch.zeros(2)
    out = kernel("cpu", "affine_add_act")(y, one, zero, None, None, None, True)
    assert torch.equal(out.isnan(), y.isnan())
    pooled, _ = kernel("cpu", "affine_act_maxpool")(y, one, zero)
    assert pooled[0, 0].isnan().all() and not pooled[0, 1].isnan().any()


HEADS = [
    (1, 2048, 7, 1000, "ResNet-50's"),
    (5, 2048, 7, 1000, "blocks of four images, and one more"),
    (2, 37, 3, 9, "no whole vector, no whole group of rows"),
    (1, 300, 1, 1, "one pixel, one output, more channels than a slice"),
    (3, 16, 129, 4, "many pixels"),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", HEADS, ids=lambda case: case[-1])
@pytest.mark.parametrize("offset", [0.0, 100.0], ids=["centred", "large mean"])
def test_avgpool_linear(case: tuple[int, int, int, int, str], dtype: torch.dtype, offset: float) -> None:
    n, c, size, k, _ = case
    x = every_kernel.activation((n, c, size, size + 1), dtype) + offset
    weight, bias = (torch.randn(k, c) / c**0.5).to(dtype), torch.randn(k).to(dtype)
    for b in (bias, None):
        out = every_kernel.avgpool_linear(x, weight, b)
        plain = F.linear(x.mean((2, 3)), weight, b)
        exact = F.linear(x.double().mean((2, 3)), weight.double(), None if b is None else b.double())
        assert_within_two_x(out, exact, plain, "avgpool_linear")


def test_no_image_has_no_logits() -> None:
    x = every_kernel.activation((0, 8, 3, 3), torch.float32)
    assert every_kernel.avgpool_linear(x, torch.randn(5, 8), None).shape == (0, 5)


def test_a_nan_reaches_its_own_image_alone() -> None:
    x = every_kernel.activation((3, 8, 3, 3), torch.float32)
    x[1, 2, 1, 1] = torch.nan
    out = every_kernel.avgpool_linear(x, torch.randn(5, 8), None)
    assert out[1].isnan().all() and not out[[0, 2]].isnan().any()


class TestRefusals:
    """Kernels check again what the wrappers promise: a pointer is about to be read."""

    one = torch.ones(6)
    y = torch.randn(2, 6, 5, 4).contiguous(memory_format=torch.channels_last)

    def refuses(self, message: str, name: str, *args: object) -> None:
        with pytest.raises(RuntimeError, match=message):
            kernel("cpu", name)(*args)

    def test_other_dtypes(self) -> None:
        message = "bn_stats: `y` must be float32 or bfloat16 on the cpu back-end; got Double"
        self.refuses(message, "bn_stats", self.y.double())

    def test_other_layouts(self) -> None:
        message = r"bn_stats: `y` must be channels_last; got shape \(2, 6, 5, 4\) with other strides"
        self.refuses(message, "bn_stats", self.y.contiguous())

    def test_other_ranks(self) -> None:
        message = r"bn_stats: `y` must have 4 dimensions \(N, C, H, W\); got shape \(6, 5, 4\)"
        self.refuses(message, "bn_stats", self.y[0])

    def test_another_shape(self) -> None:
        message = r"affine_add_act: `b` must have shape \(2, 6, 5, 4\); got \(1, 6, 5, 4\)"
        self.refuses(message, "affine_add_act", self.y, self.one, self.one, self.y[:1], None, None, True)

    @pytest.mark.parametrize(
        ("weight", "message"),
        [
            (
                torch.ones(4, 5),
                r"`weight` must be contiguous, of shape \(K, 6\); got 2 dimensions, 20 values",
            ),
            (torch.ones(6, 4).t(), r"`weight` must be contiguous, of shape \(K, 6\); got 2 dimensions"),
            (torch.ones(4, 6).bfloat16(), "`weight` must have the dtype of `x`; got BFloat16"),
        ],
        ids=["other channels", "not contiguous", "another dtype"],
    )
    def test_a_linear_layer_that_does_not_fit(self, weight: torch.Tensor, message: str) -> None:
        with pytest.raises(RuntimeError, match=f"avgpool_linear: {message}"):
            every_kernel.avgpool_linear(self.y, weight, None)

    def test_a_map_without_pixels(self) -> None:
        with pytest.raises(RuntimeError, match="avgpool_linear: `x` must have a pixel at least; got none"):
            every_kernel.avgpool_linear(self.y[:, :, :0], torch.ones(4, 6), None)

    def test_a_mix_of_dtypes(self) -> None:
        message = "affine_add_act: `b` must be Float; got BFloat16"
        args = (self.y, self.one, self.one, self.y.bfloat16(), None, None, True)
        self.refuses(message, "affine_add_act", *args)

    def test_vectors_of_another_length(self) -> None:
        message = r"affine_add_act: `ta` must have shape \(6\); got \(5\)"
        self.refuses(message, "affine_add_act", self.y, self.one, self.one[:5], None, None, None, True)

    def test_half_a_pair(self) -> None:
        message = "affine_add_act: `sb` and `tb` go together; got only one"
        args = (self.y, self.one, self.one, self.y, self.one, None, True)
        self.refuses(message, "affine_add_act", *args)
