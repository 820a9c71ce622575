"""How results are compared: the 2× rule, equality of bits, and equality of arithmetic in float64."""

from __future__ import annotations

import torch
from torch import Tensor

#: Two ways to order the same float64 arithmetic differ by at most a rounding (eps / 2) per term; the
#: sums in these tests have fewer than 2¹³ terms.
REORDERED = 2**12 * torch.finfo(torch.float64).eps


def largest(x: Tensor) -> float:
    return x.abs().max().item() if x.numel() else 0.0


def rms(x: Tensor) -> float:
    return x.square().mean().sqrt().item() if x.numel() else 0.0


def assert_within_two_x(
    ours: Tensor,
    ref: Tensor,
    plain: Tensor,
    what: str,
    slack: float = 0.0,
    factors: tuple[float, float] = (2.0, 2.0),
) -> None:
    """The 2× rule of docs/numerics.md, for the largest error and for the rms error.

    Args:
        ours: the result under test. Its dtype sets eps.
        ref: float64, on the same rounded inputs.
        plain: plain PyTorch's result in our dtype.
        slack: further error allowed, derived where it is given.
        factors: in place of 2, for the largest error and the rms error; derived in docs/numerics.md.
    """
    assert ours.shape == ref.shape == plain.shape, (
        f"{what}: shapes {tuple(ours.shape)}, {tuple(ref.shape)}, {tuple(plain.shape)}"
    )
    assert ours.dtype == plain.dtype, f"{what}: dtype {ours.dtype}, plain PyTorch's is {plain.dtype}"
    assert ref.dtype == torch.float64, f"{what}: the reference must be float64, got {ref.dtype}"
    assert bool(ours.isfinite().all()), (
        f"{what}: {int((~ours.isfinite()).sum())} of {ours.numel()} not finite"
    )
    eps = torch.finfo(ours.dtype).eps
    ref = ref.detach().cpu()
    our_error = ours.detach().cpu().double() - ref
    plain_error = plain.detach().cpu().double() - ref
    for measure, factor in zip((largest, rms), factors, strict=True):
        got, yardstick, size = measure(our_error), measure(plain_error), measure(ref)
        allowed = factor * yardstick + eps * size + slack
        assert got <= allowed, (
            f"{what}: {measure.__name__} error {got:.3e} > {allowed:.3e} = {factor} × {yardstick:.3e} (plain)"
            f" + {eps:.1e} × {size:.3e} (reference); {tuple(ours.shape)} {ours.dtype}"
        )


def assert_same_arithmetic(ours: Tensor, plain: Tensor, what: str) -> None:
    """Two float64 results that differ by the order of their sums alone."""
    assert ours.dtype == plain.dtype == torch.float64, f"{what}: {ours.dtype}, {plain.dtype}"
    assert ours.shape == plain.shape, f"{what}: {tuple(ours.shape)}, {tuple(plain.shape)}"
    error, size = largest(ours - plain), largest(plain)
    assert error <= REORDERED * max(size, 1.0), (
        f"{what}: float64 results differ by {error:.3e} at size {size:.3e}"
    )


def assert_same_bits(ours: Tensor, other: Tensor, what: str) -> None:
    assert ours.dtype == other.dtype and ours.shape == other.shape, (
        f"{what}: {ours.dtype} {tuple(ours.shape)}"
    )
    assert torch.equal(ours, other), (
        f"{what}: {int((ours != other).sum())} of {ours.numel()} values differ, at most by"
        f" {largest(ours.double() - other.double()):.3e}"
    )
