"""``fusedres.precision``: fast algorithms run where they are allowed, and nowhere else."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

import fusedres
from fusedres._build import extension_missing
from fusedres.cli.parity import FAST_EPS, FAST_FACTORS
from fusedres.ops._planned import Convolution, convolutions_seen
from fusedres.ops._shapes import Geometry
from tests._parity import assert_same_bits, assert_within_two_x, largest, rms

if extension_missing("_C") is not None:
    pytest.skip("the C++ extension is not built", allow_module_level=True)

from fusedres.backends.cpu import algorithms, engine
from fusedres.backends.cpu.engine import Algorithm

needs_fast = pytest.mark.skipif(
    engine.tile_isa(torch.float32) != "avx512", reason="rules for fast algorithms in every use: AVX-512's"
)
NHWC = torch.channels_last
FAST_NAMES = {algorithm.name.lower() for algorithm in engine.FAST if engine.runs(algorithm)}


def convolution(use: str, dtype: str, c: int, size: int, n: int, threads: int, precision: str) -> Convolution:
    one = (1, 1)
    return Convolution(
        "cpu", use, dtype, (n, c, size, size), (c, c, 3, 3), one, one, one, 1, threads, precision
    )


def every_convolution(precision: str) -> Iterator[Convolution]:
    """ResNet's 3 x 3 layers of stride 1, in every use."""
    layers = ((64, 56), (128, 28), (256, 14), (512, 7), (24, 9))
    uses, dtypes = ("infer", "fprop", "dgrad", "wgrad"), ("float32", "bfloat16")
    for use, dtype, (c, size), n, threads in itertools.product(uses, dtypes, layers, (1, 16), (1, 2)):
        yield convolution(use, dtype, c, size, n, threads, precision)


def test_default_rules_name_no_fast_algorithm() -> None:
    assert not FAST_NAMES & {engine.by_rule(c)[0] for c in every_convolution("default")}


@needs_fast
def test_fast_rules_name_one_in_every_use_but_wgrad() -> None:
    fast = [c for c in every_convolution("fast") if engine.by_rule(c)[0] in FAST_NAMES]
    assert {c.use for c in fast} == {"infer", "fprop", "dgrad"}
    by_dot_products = engine.runs(Algorithm.WINOGRAD_BF16_DOT) and not engine.runs(Algorithm.DIRECT_BF16_AMX)
    assert {c.dtype for c in fast} == ({"float32", "bfloat16"} if by_dot_products else {"float32"})
    assert {c.use for c in fast if c.dtype == "bfloat16"} <= {"infer"}


@pytest.mark.parametrize(("dilation", "groups"), [(2, 1), (1, 32)])
@pytest.mark.parametrize(("c", "size", "n"), [(64, 56, 1), (128, 28, 16), (256, 14, 16), (512, 7, 16)])
def test_rules_name_what_takes_the_convolution(c: int, size: int, n: int, dilation: int, groups: int) -> None:
    """Winograd's algorithms take no dilation, and nothing fast takes groups."""
    one = (1, 1)
    shapes = (n, c, size, size), (c, c // groups, 3, 3)
    geometry = one, (dilation, dilation), (dilation, dilation), groups
    by_precision = {
        precision: engine.by_rule(Convolution("cpu", "infer", "float32", *shapes, *geometry, 2, precision))[0]
        for precision in ("default", "fast")
    }
    assert by_precision["fast"] == by_precision["default"]


@needs_fast
def test_plans_time_fast_algorithms_under_fast_alone() -> None:
    of_fp32 = {name for name in FAST_NAMES if "f32" in name}
    for use in ("infer", "fprop", "dgrad", "wgrad"):
        timed = {p: set(algorithms.algorithms(convolution(use, "float32", 16, 9, 1, 1, p)))
                 for p in ("default", "fast")}  # fmt: skip
        assert not FAST_NAMES & timed["default"]
        assert (timed["fast"] - timed["default"] == of_fp32) == (use != "wgrad")


def block(kind: type[nn.Module] = BasicBlock) -> nn.Module:
    torch.manual_seed(0)
    upstream = BasicBlock(64, 64) if kind is BasicBlock else Bottleneck(256, 64)
    for module in upstream.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return fusedres.fuse(upstream.eval(), inplace=True)


def images(module: nn.Module) -> Tensor:
    channels = next(module.parameters()).shape[1]
    return torch.randn(2, channels, 36, 36).contiguous(memory_format=NHWC)


@needs_fast
@pytest.mark.parametrize("kind", [BasicBlock, Bottleneck])
def test_a_block_follows_the_switch_however_often_it_was_called(kind: type[nn.Module]) -> None:
    """Prepared and recalled inference, packed weights: each is kept for its precision."""
    module = block(kind)
    x = images(module)
    seen: dict[str, list[Tensor]] = {"default": [], "fast": []}
    with torch.no_grad():
        for precision in ("default", "fast", "fast", "default", "default", "fast"):
            with fusedres.precision(precision):
                seen[precision].append(module(x).clone())
        try:
            fusedres.set_precision("fast")
            seen["fast"].append(module(x).clone())
            with fusedres.precision("default"):
                seen["default"].append(module(x).clone())
        finally:
            fusedres.set_precision(None)
        seen["default"].append(module(x).clone())
    for outs in seen.values():
        for out in outs[1:]:
            assert_same_bits(out, outs[0], "again")
    assert not torch.equal(seen["default"][0], seen["fast"][0])
    upstream = fusedres.unfuse(module)
    exact = upstream.double()(x.double()).detach()
    plain = upstream.float()(x).detach()
    assert_within_two_x(seen["default"][0], exact, plain, "default")
    slack = FAST_EPS * rms(exact)
    assert_within_two_x(seen["fast"][0], exact, plain, "fast", slack, FAST_FACTORS)


def algorithms_of(found: dict[Convolution, str]) -> dict[str, set[str]]:
    by_use: dict[str, set[str]] = {}
    for conv, name in found.items():
        by_use.setdefault(conv.use, set()).add(name)
    return by_use


@needs_fast
def test_a_forward_keeps_its_precision_for_its_backward() -> None:
    module = block().train()
    x = images(module).requires_grad_()
    with fusedres.precision("fast"):
        out = module(x)
    with convolutions_seen() as found:
        out.sum().backward()
    assert algorithms_of(found)["dgrad"] <= FAST_NAMES
    out = module(x)
    with fusedres.precision("fast"), convolutions_seen() as found:
        out.sum().backward()
    assert not FAST_NAMES & algorithms_of(found)["dgrad"]


@needs_fast
def test_gradients_of_a_fast_step() -> None:
    """Outputs and gradients of conv + BatchNorm, without the kinks of a ReLU, by the fast factors."""
    torch.manual_seed(0)
    w = torch.randn(64, 64, 3, 3) / 24
    x = torch.randn(2, 64, 36, 36).contiguous(memory_format=NHWC)
    gamma, beta = torch.rand(64) + 0.5, torch.randn(64)
    dout = torch.randn(2, 64, 36, 36)

    def plain(dtype: torch.dtype) -> list[Tensor]:
        leaves = [t.to(dtype).requires_grad_() for t in (x, w, gamma, beta)]
        y = F.conv2d(leaves[0], leaves[1], padding=1)
        out = F.batch_norm(y, None, None, leaves[2], leaves[3], True)
        return [out.detach(), *torch.autograd.grad(out, leaves, dout.to(dtype))]

    leaves = [t.clone().requires_grad_() for t in (x, w, gamma, beta)]
    with fusedres.precision("fast"), convolutions_seen() as found:
        out = fusedres.conv_bn_act(*leaves, padding=1, training=True, act="none")
        ours = [out.detach(), *torch.autograd.grad(out, leaves, dout)]
    assert all(algorithms_of(found)[use] & FAST_NAMES for use in ("fprop", "dgrad"))
    for name, mine, exact, torchs in zip(
        ("out", "dx", "dw", "dgamma", "dbeta"), ours, plain(torch.float64), plain(torch.float32), strict=True
    ):
        assert_within_two_x(mine, exact, torchs, name, factors=FAST_FACTORS)


def test_a_network_runs_no_fast_algorithm_by_default() -> None:
    model = fusedres.resnet18(weights=None)
    x = torch.randn(2, 3, 64, 64)
    with convolutions_seen() as found:
        model.train()(x).sum().backward()
        with torch.no_grad():
            model.eval()(x)
    assert not FAST_NAMES & set(found.values())
    assert {conv.precision for conv in found} <= {"default"}


@needs_fast
def test_compiled_code_follows_the_switch() -> None:
    module = block()
    x = images(module)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    outs = {}
    with torch.no_grad():
        for precision in ("default", "fast"):
            with fusedres.precision(precision):
                outs[precision] = compiled(x)
                assert_same_bits(outs[precision], module(x), precision)
    assert not torch.equal(outs["default"], outs["fast"])


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"precision: must be one of 'default', 'fast'; got 'exact'"):
        fusedres.precision("exact")
    with pytest.raises(ValueError, match=r"precision: must be one of 'default', 'fast'; got 'exact'"):
        fusedres.set_precision("exact")


def test_environment() -> None:
    code = "from fusedres._settings import PRECISION; print(PRECISION.get())"
    environment = {**os.environ, "FUSEDRES_PRECISION": "fast"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "fast"


#: C, size: ResNet's layers, a few of their filters, and one that nothing divides.
LAYERS = ((64, 56), (128, 28), (256, 14), (512, 7), (50, 19))


def trained_looking(c: int, size: int) -> tuple[Tensor, Tensor]:
    """Activations after a ReLU, of positive mean and unequal channels; heavy-tailed filters, unequal too."""
    x = (torch.randn(2, c, size, size) + 0.5).relu() * (0.1 + torch.rand(c, 1, 1))
    tails = torch.distributions.StudentT(3.0).sample((40, c, 3, 3))
    return x, tails / (9 * c) ** 0.5 * torch.exp(0.7 * torch.randn(40, 1, 1, 1))


def random_looking(c: int, size: int) -> tuple[Tensor, Tensor]:
    return torch.randn(2, c, size, size), torch.randn(40, c, 3, 3) / (9 * c) ** 0.5


#: What a convolution by two bf16 parts, or of transforms in bf16, leaves out of its products, rms:
#: docs/numerics.md. Winograd's transforms make it larger.
LEFT_OUT = {
    Algorithm.DIRECT2_F32_AMX: 0.29 * 2**-16,
    Algorithm.WINOGRAD2_F32_AMX: 1.7 * 0.29 * 2**-16,
    Algorithm.WINOGRAD_BF16_DOT: 1.7 * 0.6 * 2**-8,
}


@pytest.mark.parametrize("algorithm", sorted(engine.FAST), ids=lambda a: a.name.lower())
@pytest.mark.parametrize("operands", [random_looking, trained_looking])
@pytest.mark.parametrize(("c", "size"), LAYERS)
def test_error_of_a_layer(c: int, size: int, operands: object, algorithm: Algorithm) -> None:
    """Each filter's outputs at their own scale: an error in a small filter counts as in a large one."""
    if not engine.runs(algorithm):
        pytest.skip(f"this CPU does not run {algorithm.name}")
    torch.manual_seed(c)
    x, w = (t.to(algorithm.dtype) for t in operands(c, size))  # type: ignore[operator]
    x = x.contiguous(memory_format=NHWC)
    ours = engine.conv(x, w, None, None, None, False, Geometry(padding=(1, 1)), algorithm)
    exact, plain = F.conv2d(x.double(), w.double(), padding=1), F.conv2d(x, w, padding=1)
    scale = exact.abs().amax((0, 2, 3), keepdim=True)
    if algorithm not in LEFT_OUT:
        scaled = ours / scale.float(), exact / scale, plain / scale.float()
        assert_within_two_x(*scaled, algorithm.name, factors=FAST_FACTORS)
        return
    # Relative to the root of the sum of an output's squared products, what uncorrelated errors add up to; six
    # times the rms for the largest of up to 250,000 of them; and, as always, twice plain PyTorch's error.
    products = F.conv2d(x.double().square(), w.double().square(), padding=1).sqrt()
    error, plains = (ours.double() - exact) / scale, (plain.double() - exact) / scale
    left_out = 2 * LEFT_OUT[algorithm] * rms(products / scale)
    assert rms(error) <= left_out + 2 * rms(plains)
    assert largest(error) <= 6 * LEFT_OUT[algorithm] * largest(products / scale) + 2 * largest(plains)
