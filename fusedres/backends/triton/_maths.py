"""Device functions that several kernels share. Absent operands are ``None``, known when compiling."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def relu(x):
    """max(x, 0); NaN stays NaN, as in torch."""
    return tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def channel(vector, at, inside):
    """A per-channel parameter at channels ``at``, fp32, as a row to broadcast over pixels."""
    return tl.load(vector + at, mask=inside, other=0.0).to(tl.float32)[None, :]


@triton.jit
def affine(x, scale, shift, at, inside):
    """``x * scale + shift`` in fp32, one rounding: masks formed in different kernels must agree."""
    if scale is not None:
        if shift is not None:
            x = tl.fma(x, channel(scale, at, inside), channel(shift, at, inside))
        else:
            x = x * channel(scale, at, inside)
    elif shift is not None:
        x = x + channel(shift, at, inside)
    return x


@triton.jit
def affine_inside(x, scale, shift, at, inside, ok):
    """:func:`affine` of what was loaded where ``ok``, and as 0 elsewhere: there it is 0 again.

    Masked is the shift, in fp32: a mask on the result falls on packed halves, which are taken apart for it.
    """
    if shift is not None:
        masked = tl.where(ok, channel(shift, at, inside), 0.0)
        x = tl.fma(x, channel(scale, at, inside), masked)
    else:
        x = x * channel(scale, at, inside)
    return x


@triton.jit
def is_active(y, scale, shift, at, inside):
    """Whether ``relu(y * scale + shift)``, rounded to ``y``'s dtype, is positive. Absent: ``y`` itself."""
    value = affine(y.to(tl.float32), scale, shift, at, inside)
    return value.to(y.dtype).to(tl.float32) > 0


@triton.jit
def normalized(y, mean, invstd, at, inside):
    """x̂ = (y − mean)·invstd."""
    return (y.to(tl.float32) - channel(mean, at, inside)) * channel(invstd, at, inside)


@triton.jit
def factor(x, PRECISION: tl.constexpr):
    """``x`` as a product's factor: for TF32 rounded to its ten bits of mantissa, ties away from zero.

    Matrix units may drop the other bits instead, which makes every product too small.
    """
    if PRECISION == "tf32":
        bits = x.to(tl.int32, bitcast=True)
        rounded = ((bits + 0x1000) & -0x2000).to(tl.float32, bitcast=True)
        x = tl.where(x == x, rounded, x)  # the sum would carry a NaN's mantissa into its sign
    return x
