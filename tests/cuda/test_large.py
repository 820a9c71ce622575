"""Activations of more than 2³¹ values: offsets are 64-bit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fusedres import ops
from fusedres.ops._dispatch import BACKENDS
from tests.conftest import device_of

pytestmark = pytest.mark.gpu

#: 2³¹ values in all but the last row of pixels, which 32-bit offsets would miss.
CHANNELS, HEIGHT, WIDTH = 64, 2**12 + 1, 2**13
BYTES = 2 * CHANNELS * HEIGHT * WIDTH


@pytest.fixture
def zeros_then_ones() -> Tensor:
    if reason := BACKENDS["cuda"].refusal(device_of("cuda"), torch.float16):
        pytest.skip(f"back-end 'cuda': {reason}")
    if torch.cuda.mem_get_info()[0] < 2.5 * BYTES:
        pytest.skip(f"needs {2.5 * BYTES / 2**30:.0f} GB of free device memory")
    x = torch.zeros(1, HEIGHT, WIDTH, CHANNELS, dtype=torch.float16, device="cuda").permute(0, 3, 1, 2)
    x[:, :, -1] = 1
    return x


@pytest.mark.slow
def test_statistics(zeros_then_ones: Tensor) -> None:
    count, mean, m2 = ops.bn_stats(zeros_then_ones, backend="cuda")
    assert count.double().sum() == HEIGHT * WIDTH
    mu, var, *_ = ops.bn_finalize(count, mean, m2, backend="cuda")
    exact = 1 / HEIGHT
    torch.testing.assert_close(mu, torch.full_like(mu, exact), rtol=1e-5, atol=0)
    torch.testing.assert_close(var, torch.full_like(var, exact * (1 - exact)), rtol=1e-5, atol=0)


@pytest.mark.slow
def test_pointwise(zeros_then_ones: Tensor) -> None:
    s, t = torch.full((CHANNELS,), 2.0, device="cuda"), torch.ones(CHANNELS, device="cuda")
    out = ops.affine_add_act(zeros_then_ones, s, t, backend="cuda")
    assert (out[:, :, -1] == 3).all() and (out[:, :, :8] == 1).all() and (out[:, :, -9:-1] == 1).all()
