"""Which algorithm runs a convolution: the rules, plans, and what neither may choose."""

from __future__ import annotations

import pytest
import torch

import fusedres
from fusedres._build import extension_missing
from fusedres.ops._planned import CONVOLUTIONS, Convolution
from tests._parity import assert_within_two_x

if extension_missing("_C") is not None:
    pytest.skip("the C++ extension is not built", allow_module_level=True)

from fusedres.backends.cpu import engine
from fusedres.backends.cpu.engine import Algorithm
from tests.csrc.test_conv_engine import NHWC


def test_choice() -> None:
    """Large filters and other dtypes stay with oneDNN; groups and dilation too in training."""
    one, two = (1, 1), (2, 2)
    grouped = ((1, 8, 9, 9), torch.float32, (8, 4, 3, 3), one, one, one, 2)
    dilated = ((1, 8, 9, 9), torch.float32, (8, 8, 3, 3), one, one, two, 1)
    for use in ("fprop", "dgrad", "wgrad"):
        assert engine.choose(*grouped, use) is None
        assert engine.choose(*dilated, use) is None
    assert engine.choose((1, 8, 19, 19), torch.float32, (8, 8, 13, 13), one, (0, 0), one, 1) is None
    assert engine.choose((1, 8, 9, 9), torch.float64, (8, 8, 3, 3), one, one, one, 1) is None
    isa = engine.tile_isa(torch.float32)
    if isa == "portable":
        assert engine.choose(*grouped) is None
        return
    few = engine.choose((1, 512, 7, 7), torch.float32, (512, 512, 3, 3), one, one, one, 1)
    many = engine.choose((16, 512, 7, 7), torch.float32, (512, 512, 3, 3), one, one, one, 1)
    # The matrix unit leaves so few patches to direct convolution.
    assert few == (Algorithm.DIRECT_F32 if engine.runs(Algorithm.DIRECT_BF16_AMX) else Algorithm.WINOGRAD_F32)
    assert many == Algorithm.WINOGRAD_F32
    assert engine.choose(*grouped) == engine.choose(*dilated) == Algorithm.DIRECT_F32


@pytest.mark.parametrize(
    ("name", "dtype", "precision"),
    [
        ("winograd_f32", "float32", "default"),  # a 3x3 of stride 1 alone
        ("direct_bf16_dot", "float32", "default"),  # would round what it is given
        ("direct2_f32_amx", "float32", "default"),  # for `fast`
    ],
)
def test_a_plan_of_what_cannot_be_is_not_followed(
    name: str, dtype: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not engine.runs(Algorithm[name.upper()]):
        pytest.skip(f"this CPU does not run {name}, which then is oneDNN's anyway")
    shapes = (1, 64, 9, 9), (64, 64, 1, 1)
    geometry = (1, 1), (0, 0), (1, 1)
    key = Convolution("cpu", "infer", dtype, *shapes, *geometry, 1, torch.get_num_threads(), precision)
    by_rule = engine.choose(shapes[0], getattr(torch, dtype), shapes[1], *geometry, 1)
    monkeypatch.setitem(CONVOLUTIONS, key, name)
    assert engine.choose(shapes[0], getattr(torch, dtype), shapes[1], *geometry, 1) == by_rule
    monkeypatch.setitem(CONVOLUTIONS, key, "onednn")
    assert engine.choose(shapes[0], getattr(torch, dtype), shapes[1], *geometry, 1) is None


@pytest.mark.skipif(engine.tile_isa(torch.float32) == "portable", reason="the rules leave all to oneDNN")
def test_one_convolution_of_onednns_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan's choice for one convolution of a bottleneck is not another one's; nothing is packed in vain."""
    x, w1, w2, w3 = (
        torch.randn(shape).contiguous(memory_format=NHWC)
        for shape in ((1, 64, 8, 8), (32, 64, 1, 1), (32, 32, 3, 3), (64, 32, 1, 1))
    )
    vectors = [torch.rand(k) + 0.5 for k in (32, 32, 64)]
    operands = [t for w, v in zip((w1, w2, w3), vectors, strict=True) for t in (w, v, v)]
    with torch.no_grad():
        with fusedres.backend("reference"):
            plain = fusedres.ops.bottleneck_infer(x, *operands)
            exact = fusedres.ops.bottleneck_infer(x.double(), *(t.double() for t in operands))
        geometry = (1, 1), (0, 0), (1, 1), 1, torch.get_num_threads(), "default"
        last = Convolution("cpu", "infer", "float32", (1, 32, 8, 8), (64, 32, 1, 1), *geometry)
        monkeypatch.setitem(CONVOLUTIONS, last, "onednn")
        with fusedres.backend("cpu"), torch.profiler.profile() as profile:
            mixed = fusedres.ops.bottleneck_infer(x, *operands)
    counts = {event.key: event.count for event in profile.key_averages()}
    assert counts["fusedres_cpu::conv_pack"] == counts["fusedres_cpu::conv_packed"] == 2
    assert counts["mkldnn::_convolution_pointwise"] == 1
    assert_within_two_x(mixed, exact, plain, "a bottleneck of both libraries")
