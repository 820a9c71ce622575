"""Activations of more than 2³¹ values: offsets are 64-bit. Of each kernel the last program alone is emulated.

What it touches lies beyond 2³¹ values; the rest of the memory is reserved, and never backed by pages.
"""

# ruff: noqa: E402 (what needs Triton and the emulator comes after saying why they are missing)

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

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
from fusedres.ops._dispatch import BACKENDS, Backend
from tests.triton._ahead import DEVICES, Launch, compiled, intercept

pytestmark = [pytest.mark.emulated, pytest.mark.slow]

#: 2³¹ values in all but the last row of pixels, which 32-bit offsets would miss.
CHANNELS, HEIGHT, WIDTH = 64, 2**12 + 1, 2**13
#: The end of a map that the last program of any kernel here reads or writes at most.
ROWS = 3


def in_last_place(ptx: str, grid: tuple[int, ...]) -> str:
    """A program of a grid of one believes to be the last of ``grid`` along its first and third axis."""
    for axis, count in zip("xz", (grid[0], grid[2] if len(grid) > 2 else 1), strict=True):
        ptx = re.sub(rf"mov\.u32\s+(%r\d+), %ctaid\.{axis};", rf"mov.u32 \1, {count - 1};", ptx)
        ptx = re.sub(rf"mov\.u32\s+(%r\d+), %nctaid\.{axis};", rf"mov.u32 \1, {count};", ptx)
    return ptx


def emulate_last(launch: Launch) -> None:
    if "WIDE" not in launch.constants:
        return  # it reduces partials, which are few
    assert launch.constants["WIDE"]
    kernel = compiled(launch, GPUTarget("cuda", 80, 32))
    types, _, _ = launch.signature()
    arguments = [launch.arguments[name] for name, kind in types.items() if kind != "constexpr"]
    module = ptxemu.load(in_last_place(kernel.asm["ptx"], launch.grid))
    arguments += [None] * (module.kernel(None).param_count - len(arguments))  # Triton's scratch pointers
    block = 32 * kernel.metadata.num_warps
    module.launch(None, (1, 1, 1), block, arguments, dynamic_smem=kernel.metadata.shared, count=0)


@pytest.fixture(autouse=True)
def _emulated_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    intercept(monkeypatch, DEVICES[80], emulate_last)
    monkeypatch.setitem(BACKENDS, "triton", Backend("triton", lambda: None, lambda device, dtype: None))


def reserved() -> Tensor:
    """A map of which only the last rows hold values."""
    x = torch.empty(1, HEIGHT, WIDTH, CHANNELS, dtype=torch.float16).permute(0, 3, 1, 2)
    torch.manual_seed(0)
    x[:, :, -ROWS:] = torch.randn(1, CHANNELS, ROWS, WIDTH)
    return x


def vectors(count: int) -> list[Tensor]:
    return [torch.rand(CHANNELS) for _ in range(count)]


def weight(size: int) -> Tensor:
    return torch.randn(CHANNELS, CHANNELS, size, size).half().contiguous(memory_format=torch.channels_last)


def assert_last_pixels(ours: Tensor, expected: Tensor, pixels: int = 16) -> None:
    """The last few of the last row.

    Half precision rounds once, by 2⁻¹¹ of a value; 2⁻¹⁰ leaves as much for fp32's sums. Where these cancel,
    576 roundings of partial sums near 24 add up to 24 · 24 · 2⁻²⁴ = 3.4e-5, rms; thirty times that is
    allowed. A wrong offset reads zeros in place of values near one.
    """
    torch.testing.assert_close(
        ours[0, :, -1, -pixels:], expected[0, :, -1, -pixels:].half(), rtol=2**-10, atol=1e-3
    )


@pytest.mark.parametrize("size", [1, 3])
def test_convolutions(size: int) -> None:
    x, w = reserved(), weight(size)
    end = x[:, :, -ROWS:].float()
    forward = ops.conv_affine_act(x, w, relu=False, padding=size // 2, backend="triton")
    assert_last_pixels(forward, torch.nn.functional.conv2d(end, w.float(), padding=size // 2))
    dx, _ = ops.conv_dgrad(x, w, x_shape=x.shape, padding=size // 2, backend="triton")
    assert_last_pixels(dx, torch.nn.grad.conv2d_input(end.shape, w.float(), end, padding=size // 2))


def test_pointwise() -> None:
    x, (s, t) = reserved(), vectors(2)
    out = ops.affine_add_act(x, s, t, backend="triton")
    end = x[:, :, -1:].float()
    activated = (end * s.view(-1, 1, 1) + t.view(-1, 1, 1)).relu()
    assert_last_pixels(out, activated, 8)
    dz, *_ = ops.bn_act_bwd_reduce(x, x, x, None, None, *vectors(2), None, None, None, backend="triton")
    assert_last_pixels(dz, end * (end > 0), 8)
    p, q, r = vectors(3)
    dy, _ = ops.bn_act_bwd_apply(x, x, p, q, r, backend="triton")
    assert_last_pixels(dy, end * (p + q).view(-1, 1, 1) + r.view(-1, 1, 1), 8)


def test_statistics() -> None:
    """The last tile of zeros and of all that is not."""
    x = reserved()
    count, mean, m2 = ops.bn_stats(x, backend="triton")
    end, n = x[0, :, -ROWS:].double().flatten(1), float(count[-1])
    assert end.shape[1] < n < 4 * end.shape[1]
    expected = end.sum(1) / n
    # A tree of fp32 sums has 17 levels of 2^-24 here: 1e-6 of the values' mean size, which is near one. M2
    # is allowed a hundred times that. A wrong offset misses a third of the values.
    torch.testing.assert_close(mean[-1].double(), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(m2[-1].double(), (end**2).sum(1) - n * expected**2, rtol=1e-4, atol=0)


def test_stem() -> None:
    x, (s, t) = reserved(), vectors(2)
    out, index = ops.affine_act_maxpool(x, s, t, backend="triton")
    activated = (x[:, :, -ROWS:].float() * s.view(-1, 1, 1) + t.view(-1, 1, 1)).relu()
    expected, _ = torch.nn.functional.max_pool2d(activated, 3, 2, 1, return_indices=True)
    assert_last_pixels(out, expected, 8)
    assert int(index[0, :, -1, -8:].max()) < 9


def test_weight_gradient() -> None:
    """The part of the last pixels."""
    x, parts = reserved(), []
    with pytest.MonkeyPatch.context() as patch:

        def note(launch: Launch) -> None:
            emulate_last(launch)
            parts.append(launch.arguments.get("dw"))

        intercept(patch, DEVICES[80], note)
        ops.conv_wgrad(x, x, w_shape=(CHANNELS, CHANNELS, 1, 1), backend="triton")
    end = x[0, :, -ROWS:].double().flatten(1)
    # 24,576 roundings of partial sums near 157, each 2^-24 of them, add up to 157 * 157 * 2^-24 = 1.5e-3,
    # rms; six times that is allowed. A missed row takes 8,192 products of size one.
    torch.testing.assert_close(parts[0][-1].double(), end @ end.T, rtol=1e-4, atol=1e-2)
