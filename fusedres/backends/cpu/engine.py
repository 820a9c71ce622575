"""Our own convolutions for inference (``csrc/cpu/conv``), and when they serve instead of oneDNN.

They apply scale and shift in fp32 to the fp32 sums, where oneDNN's fused form needs the scale folded into
the weights. They need AVX-512 (bf16: AVX512-BF16 or AMX) and take neither groups nor dilation: there
:func:`choose` returns ``None`` and oneDNN serves. ``docs/cpu.md`` has the measurements behind the choices.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from fusedres.ops._caches import DerivedCache, running_affine
from fusedres.ops._dispatch import PreparedBlock
from fusedres.ops._residual import Layer
from fusedres.ops._shapes import Geometry, conv_output_shape
from fusedres.ops.bottleneck_infer import middle_geometry

Ints = Sequence[int]

_LIBRARY = torch.library.Library("fusedres_cpu", "FRAGMENT")  # type: ignore[no-untyped-call]
for _schema in (
    "conv_engine_runs(int algorithm) -> bool",
    "conv_pack(Tensor w, SymInt[2] stride, SymInt[2] padding, int algorithm) -> Tensor",
    "conv_once(Tensor x, Tensor w, Tensor? residual, SymInt[2] stride, SymInt[2] padding, int algorithm)"
    " -> Tensor",
    "conv_once_stats(Tensor x, Tensor w, SymInt[2] stride, SymInt[2] padding, int algorithm)"
    " -> (Tensor y, Tensor count, Tensor mean, Tensor m2)",
    "conv_once_reduce(Tensor dy, Tensor w, Tensor? out, Tensor? y, Tensor? s, Tensor? t, Tensor? mean,"
    " Tensor? invstd, SymInt[2] padding, int algorithm) -> (Tensor dz, Tensor sums)",
    "dgrad_strided(Tensor dy, Tensor turned, Tensor? add, SymInt[4] x_shape, SymInt[2] stride, int algorithm)"
    " -> Tensor",
    "conv_packed(Tensor x, Tensor packed, Tensor? scale, Tensor? shift, Tensor? residual, bool relu)"
    " -> Tensor",
    "wgrad(Tensor x, Tensor dy, Tensor? in_scale, Tensor? in_shift, SymInt[4] w_shape, SymInt[2] stride,"
    " SymInt[2] padding, int algorithm) -> Tensor",
    "block_packed(Tensor x, Tensor[] packed, Tensor[] scales, Tensor[] shifts, bool downsample) -> Tensor",
):
    _LIBRARY.define(_schema)  # type: ignore[no-untyped-call]
_OPS = torch.ops.fusedres_cpu


class Algorithm(IntEnum):
    """How a convolution is done; the numbers are those of ``csrc/cpu/conv/shape.h``."""

    DIRECT_F32 = 0
    WINOGRAD_F32 = 1  # F(2x2, 3x3): rounds less than direct convolution does
    DIRECT_BF16_DOT = 2
    DIRECT_BF16_AMX = 3


#: A filter's taps (R * S) that the engine takes.
MOST_TAPS = 128


class WinogradLimit(NamedTuple):
    """Winograd's weights are 16 / 9 as large as direct ones: few patches do not pay for reading them."""

    weights: int  # K * C, from which the limit holds
    patches: int  # 2 x 2 output patches below which direct convolution is faster


#: 512 -> 512 at 7 x 7, batch 1, has 16 patches for 17 MB of weights; there the two run about level, and which
#: one leads changed from run to run. At 256 -> 256, 14 x 14 (49 patches), Winograd takes about half the time.
WINOGRAD_LIMITS = (WinogradLimit(weights=512 * 512, patches=32),)


@cache
def runs(algorithm: Algorithm) -> bool:
    """Whether this CPU, the build and ``FUSEDRES_CPU_ISA`` allow it."""
    return bool(_OPS.conv_engine_runs(int(algorithm)))


def choose(
    x_shape: Ints, dtype: torch.dtype, w_shape: Ints, stride: Ints, padding: Ints, dilation: Ints, groups: int
) -> Algorithm | None:
    """The engine's algorithm for this convolution, or ``None``: oneDNN's."""
    k, c, r, s = w_shape
    if groups != 1 or tuple(dilation) != (1, 1) or r * s > MOST_TAPS:
        return None
    if dtype == torch.bfloat16:
        for algorithm in (Algorithm.DIRECT_BF16_AMX, Algorithm.DIRECT_BF16_DOT):
            if runs(algorithm):
                return algorithm
        return None
    if dtype != torch.float32 or not runs(Algorithm.DIRECT_F32):
        return None
    if (r, s) == (3, 3) and tuple(stride) == (1, 1):
        p, q = x_shape[2] + 2 * padding[0] - 2, x_shape[3] + 2 * padding[1] - 2
        patches = x_shape[0] * ((p + 1) // 2) * ((q + 1) // 2)
        if all(k * c < limit.weights or patches >= limit.patches for limit in WINOGRAD_LIMITS):
            return Algorithm.WINOGRAD_F32
    return Algorithm.DIRECT_F32


#: In training the weights are packed anew every step: 50 ns a pair of channels for Winograd, whose gain
#: over oneDNN (1.2 to 1.9x) is 0.04 ns a pair and pixel: they meet at 1200 pixels of the batch. A direct
#: convolution gains where the maps are large (its outputs come in large pages): 1.1 to 1.5x from 28 x 28 on,
#: 0.93 to 1.05x below, 0.85x at stride 2. bf16: nothing that outweighs the packing.
LEAST_TRAINING_BATCH = 2048  # pixels of all images
LEAST_TRAINING_MAP = 28 * 28  # pixels of one, for direct convolution


def choose_for_training(
    x_shape: Ints, dtype: torch.dtype, w_shape: Ints, stride: Ints, padding: Ints, dilation: Ints, groups: int
) -> Algorithm | None:
    """:func:`choose` for weights that are used once: a training step's forward, or its dgrad as a forward."""
    pixels = x_shape[2] * x_shape[3]
    if dtype != torch.float32 or x_shape[0] * pixels < LEAST_TRAINING_BATCH:
        return None
    algorithm = choose(x_shape, dtype, w_shape, stride, padding, dilation, groups)
    stem = w_shape[1] < 16
    large = pixels >= LEAST_TRAINING_MAP and tuple(stride) == (1, 1)
    return algorithm if algorithm == Algorithm.WINOGRAD_F32 or large or stem else None


#: Output pixels of all images from which packing the weights pays in the dgrad of a strided 1x1 convolution.
LEAST_STRIDED_BATCH = {torch.float32: 512, torch.bfloat16: 2048}


def choose_for_strided_dgrad(
    dy_shape: Ints, dtype: torch.dtype, turned_shape: Ints, dilation: Ints, groups: int
) -> Algorithm | None:
    """The engine's algorithm for the dgrad of a strided 1x1 convolution; oneDNN's is
    the slowest of its dgrads (fp32: 70 to 97 GFLOP/s; ours with the sum takes 0.7 to 0.9 of its time without)."""
    least = LEAST_STRIDED_BATCH.get(dtype)
    if least is None or dy_shape[0] * dy_shape[2] * dy_shape[3] < least:
        return None
    return choose(dy_shape, dtype, turned_shape, (1, 1), (0, 0), dilation, groups)


#: Above this, fp32 layers of 1x1 and stride 1 are bound by memory, and oneDNN's wgrad, which copies neither operand,
#: leads (by 1.1 to 1.3x at 56 x 56). Below, and for other filters, ours does: by 1.2 to 1.5x with Winograd, by 1.0 to
#: 1.5x without. In bf16 AMX makes ours level or ahead (up to 3x at stride 2) wherever a vector of channels is full.
MOST_WGRAD_MAP = 28 * 28  # output pixels of an image
LEAST_WGRAD_CHANNELS = 16


def choose_for_wgrad(
    x_shape: Ints, dtype: torch.dtype, w_shape: Ints, stride: Ints, padding: Ints, dilation: Ints, groups: int
) -> Algorithm | None:
    """The engine's algorithm for this weight gradient, or ``None``: oneDNN's."""
    _, c, r, s = w_shape
    if c < LEAST_WGRAD_CHANNELS or x_shape[0] * x_shape[2] * x_shape[3] < LEAST_TRAINING_BATCH:
        return None
    if dtype == torch.bfloat16:
        amx = choose(x_shape, dtype, w_shape, stride, padding, dilation, groups)
        return amx if amx == Algorithm.DIRECT_BF16_AMX else None
    pixels = (x_shape[2] // stride[0]) * (x_shape[3] // stride[1])
    if (r, s) == (1, 1) and tuple(stride) == (1, 1) and pixels > MOST_WGRAD_MAP:
        return None
    algorithm = choose(x_shape, dtype, w_shape, stride, padding, dilation, groups)
    if (r, s) == (3, 3) and tuple(stride) == (1, 1) and algorithm is not None:
        return Algorithm.WINOGRAD_F32
    return algorithm


def wgrad(
    x: Tensor,
    dy: Tensor,
    in_scale: Tensor | None,
    in_shift: Tensor | None,
    w_shape: Ints,
    stride: Ints,
    padding: Ints,
    algorithm: Algorithm,
) -> Tensor:
    """The weight's gradient; ``x`` is activated as it is loaded where ``in_scale`` and ``in_shift`` are given."""
    dw: Tensor = _OPS.wgrad.default(x, dy, in_scale, in_shift, w_shape, stride, padding, algorithm)
    return dw


def conv_once(
    x: Tensor, w: Tensor, residual: Tensor | None, stride: Ints, padding: Ints, algorithm: Algorithm
) -> Tensor:
    """``conv(x, w) + residual`` with weights that are packed for this call alone."""
    out: Tensor = _OPS.conv_once.default(x, w, residual, stride, padding, algorithm)
    return out


def conv_once_stats(
    x: Tensor, w: Tensor, stride: Ints, padding: Ints, algorithm: Algorithm
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """:func:`conv_once` and the ``bn_stats`` of its output, taken while that is near."""
    y, count, mean, m2 = _OPS.conv_once_stats.default(x, w, stride, padding, algorithm)
    return y, count, mean, m2


def conv_once_reduce(
    dy: Tensor, w: Tensor, before: Sequence[Tensor | None], padding: Ints, algorithm: Algorithm
) -> tuple[Tensor, Tensor]:
    """:func:`conv_once` and ``bn_act_bwd_reduce`` of its output: ``before`` is (out, y, s, t, mean, invstd)."""
    dz, sums = _OPS.conv_once_reduce.default(dy, w, *before, padding, algorithm)
    return dz, sums


def dgrad_strided(
    dy: Tensor, turned: Tensor, add: Tensor | None, x_shape: Ints, stride: Ints, algorithm: Algorithm
) -> Tensor:
    """dgrad of a strided 1x1 convolution + ``add``: ``dy`` convolved with ``turned``, every stride-th pixel."""
    dx: Tensor = _OPS.dgrad_strided.default(dy, turned, add, x_shape, stride, algorithm)
    return dx


_PACKED: DerivedCache[Tensor] = DerivedCache(2)
_BLOCKS: DerivedCache[list[Tensor] | None] = DerivedCache(4)


def packed(w: Tensor, stride: Ints, padding: Ints, algorithm: Algorithm) -> Tensor:
    """``w`` in the algorithm's layout: an opaque uint8 tensor, kept until ``w`` changes."""
    variant = (algorithm, tuple(stride), tuple(padding))
    return _PACKED.get(w, (), variant, lambda: _OPS.conv_pack.default(w.detach(), stride, padding, algorithm))


def conv(
    x: Tensor,
    w: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    residual: Tensor | None,
    relu: bool,
    stride: Ints,
    padding: Ints,
    algorithm: Algorithm,
) -> Tensor:
    """``relu(conv(x, w) * scale + shift + residual)`` by an algorithm that :func:`choose` named."""
    weights = packed(w, stride, padding, algorithm)
    out: Tensor = _OPS.conv_packed.default(x, weights, scale, shift, residual, relu)
    return out


def bottleneck(
    x: Tensor,
    convs: Sequence[tuple[Tensor, Tensor, Tensor]],
    downsample: tuple[Tensor, Tensor, Tensor] | None,
    stride: Ints,
    dilation: Ints,
    groups: int,
) -> Tensor | None:
    """A bottleneck in one call, its inner activations in scratch memory; ``None`` where oneDNN serves.

    Args:
        convs: (weight, scale, shift) of the 1x1, the 3x3 and the 1x1.
        downsample: the same of the skip, or ``None`` for an identity.
    """
    every = list(convs) if downsample is None else [*convs, downsample]
    weights = [operands[0] for operands in every]
    middle = middle_geometry(stride, dilation, groups)
    geometries = [Geometry(), middle, Geometry(), Geometry(stride=middle.stride)][: len(every)]
    variant = (tuple(x.shape), tuple(stride), tuple(dilation), groups, downsample is None)
    layouts = _BLOCKS.get(
        weights[0],
        tuple(weights[1:]),
        variant,
        lambda: pack_block(x, weights, geometries, downsample is not None),
    )
    if layouts is None:
        return None
    scales, shifts = ([operands[i] for operands in every] for i in (1, 2))
    out: Tensor = _OPS.block_packed.default(x, layouts, scales, shifts, downsample is not None)
    return out


def pack_block(
    x: Tensor, weights: Sequence[Tensor], geometries: Sequence[Geometry], downsample: bool
) -> list[Tensor] | None:
    """The packed weights of a block's chain (and last its downsample); ``None`` where oneDNN serves one."""
    layouts = []
    shape: Ints = x.shape
    for i, (weight, geometry) in enumerate(zip(weights, geometries, strict=True)):
        if downsample and i + 1 == len(weights):
            shape = x.shape
        algorithm = choose(shape, x.dtype, weight.shape, *geometry)
        if algorithm is None:
            return None
        layouts.append(packed(weight, geometry.stride, geometry.padding, algorithm))
        shape = conv_output_shape(shape, weight.shape, geometry)
    return layouts


def prepare_block(x: Tensor, chain: Sequence[Layer], downsample: Layer | None) -> PreparedBlock | None:
    """A basic block or bottleneck with frozen BatchNorm as one call of the engine, or ``None``: oneDNN."""
    every = list(chain) if downsample is None else [*chain, downsample]
    joins = downsample is not None
    if len(chain) not in (2, 3):
        return None
    layouts = pack_block(x, [layer.weight for layer in every], [layer.geometry for layer in every], joins)
    if layouts is None:
        return None
    affines = []
    for layer in every:
        assert layer.running_mean is not None and layer.running_var is not None
        affines.append(
            running_affine(layer.gamma, layer.beta, layer.running_mean, layer.running_var, layer.eps)
        )
    scales, shifts = ([affine[i] for affine in affines] for i in (0, 1))
    run = _OPS.block_packed.default

    def block(x: Tensor) -> Tensor:
        out: Tensor = run(x, layouts, scales, shifts, joins)
        return out

    return block
