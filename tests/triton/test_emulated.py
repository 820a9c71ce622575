"""Every kernel compiled for compute capability 8.0, its PTX run on the CPU by tools/ptxemu, in bfloat16.

The back-end's own host code runs; only its launches are replaced. The emulator's checks are on: bounds of
every tensor, races between warps, uninitialised memory.
"""

# ruff: noqa: E402 (what needs Triton and the emulator comes after saying why they are missing)

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

if importlib.util.find_spec("triton") is None:
    pytest.skip("Triton is not installed", allow_module_level=True)
TOOL = Path(__file__).parents[2] / "tools" / "ptxemu"
if not (TOOL / "ptxemu").is_dir():
    pytest.skip("tools/ptxemu is not in this checkout", allow_module_level=True)
sys.path.insert(0, str(TOOL))

import ptxemu
from triton.backends.compiler import GPUTarget

from fusedres import ops
from fusedres.backends.triton._runs import run_of
from fusedres.ops._dispatch import BACKENDS, Backend
from fusedres.ops._shapes import Geometry
from tests._parity import assert_same_bits, assert_within_two_x
from tests._tf32 import rounded
from tests.ops import (
    test_affine_act_maxpool,
    test_affine_add_act,
    test_bn_act_bwd_apply,
    test_bn_act_bwd_reduce,
    test_bn_bwd_finalize,
    test_bn_finalize,
    test_bn_stats,
    test_bn_update_running,
    test_bottleneck_infer,
    test_conv_affine_act,
    test_conv_dgrad,
    test_conv_stats,
    test_conv_wgrad,
)
from tests.ops._rules import Case, KernelRules
from tests.triton._ahead import DEVICES, Launch, compiled, intercept

pytestmark = pytest.mark.emulated

MODULES = (
    test_affine_act_maxpool, test_affine_add_act, test_bn_act_bwd_apply, test_bn_act_bwd_reduce,
    test_bn_bwd_finalize, test_bn_finalize, test_bn_stats, test_bn_update_running, test_bottleneck_infer,
    test_conv_affine_act, test_conv_dgrad, test_conv_stats, test_conv_wgrad,
)  # fmt: skip

#: The rules of each op, by its name.
RULES: dict[str, KernelRules] = {
    value.op: value()
    for module in MODULES
    for value in vars(module).values()
    if isinstance(value, type) and issubclass(value, KernelRules) and value is not KernelRules
}

CAPABILITY = 80

#: Each case costs a compilation by Triton and one by g++, 5 to 20 s until they are cached.
QUICK_OPS = ("conv_affine_act", "affine_add_act", "bn_finalize")
QUICK_SHAPES = ("odd",)
MORE_SHAPES = ("stride2", "grouped", "dilated", "stem", "words", "one_pixel", "many_tiles", "prime")


def emulate(launch: Launch) -> None:
    """Compile the kernel for the device and run its PTX over the grid."""
    kernel = compiled(launch, GPUTarget("cuda", CAPABILITY, 32))
    types, _, _ = launch.signature()
    arguments: list[Any] = [launch.arguments[name] for name, kind in types.items() if kind != "constexpr"]
    module = ptxemu.load(kernel.asm["ptx"])
    arguments += [None] * (module.kernel(None).param_count - len(arguments))  # Triton's scratch pointers

    def run(**options: Any) -> list[Tensor]:
        block = 32 * kernel.metadata.num_warps
        module.launch(
            None,
            launch.grid,
            block,
            arguments,
            dynamic_smem=kernel.metadata.shared,
            check_init=True,
            **options,
        )
        return [t.clone() for t in arguments if isinstance(t, Tensor)]

    try:
        run(race=True)
    except ptxemu.PtxEmuError as error:
        if not only_writes_race(str(error)):
            raise
        for one, other in zip(run(seed=1), run(seed=2), strict=True):
            assert_same_bits(one, other, f"{launch.name} with its warps in another order")


def only_writes_race(error: str) -> bool:
    """Whether each line is about two writes. Triton lets warps that hold copies of one value (what a
    reduction leaves) all write it to the same place; two orders of the warps must then give the same bits."""
    lines = [line for line in error.splitlines() if line.startswith("kernel ")]
    return all("race: write of" in line and "unsynchronised write by" in line for line in lines)


@pytest.fixture(autouse=True)
def _emulated_backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    intercept(monkeypatch, DEVICES[CAPABILITY], emulate)
    monkeypatch.setitem(BACKENDS, "triton", Backend("triton", lambda: None, lambda device, dtype: None))
    yield


def check(op: str, case: Case, dtype: torch.dtype) -> None:
    """The 2× rule of tests/ops, for the emulated kernel."""
    rules = RULES[op]
    inputs = rules.made(case, dtype)
    exact = {
        k: v.double() if isinstance(v, Tensor) and v.is_floating_point() else v for k, v in inputs.items()
    }
    plain = rules.plain(inputs)
    ours = rules.observe(rules.call(inputs, "triton"))
    reference = rules.observe(rules.call(exact, "reference"))
    for name, o, r, p in zip(rules.outputs, ours, reference, plain, strict=True):
        if o.is_floating_point():
            assert_within_two_x(o, r, p, f"{op} {case} {name}")
        else:
            assert_same_bits(o, p, f"{op} {case} {name}")


def cases(names: tuple[str, ...]) -> list[Any]:
    return [
        pytest.param(op, Case(shape, rules.variants[0]), id=f"{op}-{shape}")
        for op, rules in RULES.items()
        for shape in rules.shapes
        if shape.name in names
    ]


@pytest.mark.parametrize("op, case", [c for c in cases(QUICK_SHAPES) if c.values[0] in QUICK_OPS])
def test_bfloat16(op: str, case: Case) -> None:
    check(op, case, torch.bfloat16)


@pytest.mark.slow
@pytest.mark.parametrize("op, case", [c for c in cases(QUICK_SHAPES) if c.values[0] not in QUICK_OPS])
def test_bfloat16_of_every_other_op(op: str, case: Case) -> None:
    check(op, case, torch.bfloat16)


@pytest.mark.slow
@pytest.mark.parametrize("op, case", cases(MORE_SHAPES))
def test_bfloat16_awkward_shapes(op: str, case: Case) -> None:
    check(op, case, torch.bfloat16)


@pytest.mark.slow
@pytest.mark.parametrize("allow_tf32", [True, False], ids=["tf32", "exact"])
@pytest.mark.parametrize("op", ["conv_affine_act", "conv_dgrad", "conv_wgrad"])
def test_float32(op: str, allow_tf32: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """TF32 has ten bits of mantissa, as half precision does: its products are held to fp16's 2× rule."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", allow_tf32)
    case = RULES[op].odd()
    if not allow_tf32:
        check(op, case, torch.float32)
        return
    rules = RULES[op]
    inputs = {
        k: v.half().float() if isinstance(v, Tensor) and v.dim() == 4 else v
        for k, v in rules.made(case, torch.float32).items()
    }
    ours = rules.call(inputs, "triton")[0]
    reference = rules.call(
        {k: v.double() if isinstance(v, Tensor) else v for k, v in inputs.items()}, "reference"
    )
    half = rules.made(case, torch.float16)
    assert_within_two_x(ours.half(), reference[0], rules.plain(half)[0], f"{op} {case} in TF32")


#: A NaN as a GPU makes it; what rounds its mantissa up must not carry into the sign.
NAN = torch.tensor(0x7FFFFFFF, dtype=torch.int32).view(torch.float32)


@pytest.mark.parametrize("op", ["conv_affine_act", "conv_dgrad", "conv_wgrad"])
def test_tf32_factors_are_rounded(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not cut off, as the matrix unit does by itself: factors rounded beforehand give the same bits."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    torch.manual_seed(0)
    x, dz, w = (
        torch.randn(shape).contiguous(memory_format=torch.channels_last)
        for shape in ((2, 16, 5, 5), (2, 16, 5, 5), (16, 16, 3, 3))
    )

    def run(x: Tensor, dz: Tensor, w: Tensor) -> Tensor:
        if op == "conv_wgrad":
            return ops.conv_wgrad(x, dz, w_shape=w.shape, padding=1, backend="triton")
        if op == "conv_dgrad":
            return ops.conv_dgrad(dz, w, x_shape=x.shape, padding=1, backend="triton")[0]
        return ops.conv_affine_act(x, w, padding=1, backend="triton")

    out = run(x, dz, w)
    assert_same_bits(out, run(*map(rounded, (x, dz, w))), op)
    assert not torch.equal(
        out, run(*((t.view(torch.int32) & -0x2000).view(torch.float32) for t in (x, dz, w)))
    )
    x[0, 0, 0, 0] = dz[0, 0, 0, 0] = NAN
    assert run(x, dz, w).isnan().any(), "a NaN is a factor too"


def test_a_word_begins_before_its_run() -> None:
    """The value there, which no tap sees, reaches no result: an infinity times a weight of 0 is no number."""
    torch.manual_seed(0)
    x, w = (torch.randn(shape).bfloat16() for shape in ((1, 3, 5, 8), (8, 3, 3, 3)))
    g = {"stride": 2, "padding": (1, 1)}
    assert (run := run_of(x, 3, Geometry((2, 2), (1, 1)))) and run.lead == 1
    finite = ops.conv_affine_act(x, w, relu=False, **g, backend="triton")
    x[0, 2, 2, 2] = float("inf")  # the channel before the taps of column 2
    out = ops.conv_affine_act(x, w, relu=False, **g, backend="triton")
    assert not out[:, :, 1, 1].isfinite().all()
    assert_same_bits(out[:, :, :, 2:], finite[:, :, :, 2:], "a run after an infinity")


def test_constant_channel_has_no_variance() -> None:
    x = torch.full((2, 16, 6, 6), 1.0, dtype=torch.bfloat16)
    w = torch.full((16, 16, 1, 1), 6.25, dtype=torch.bfloat16)
    y, count, mean, m2 = ops.conv_stats(x, w, backend="triton")
    assert bool((y == 100).all()) and bool((mean == 100).all()) and bool((m2 == 0).all())
    mean, var, *_ = ops.bn_finalize(count, mean, m2, backend="triton")
    assert bool((mean == 100).all()) and bool((var == 0).all())
