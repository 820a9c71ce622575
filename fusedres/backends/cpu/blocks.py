"""Inference in few calls of the engine: a stem, a block, all of a network's blocks, a head, or the whole."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from fusedres._settings import PRECISION
from fusedres.backends.cpu.engine import OPS, Ints, choose, packed
from fusedres.ops._caches import DerivedCache, running_affine
from fusedres.ops._dispatch import Prepared
from fusedres.ops._residual import Layer
from fusedres.ops._shapes import Geometry, conv_output_shape
from fusedres.ops.bottleneck_infer import middle_geometry


class Layouts(NamedTuple):
    """A block's packed weights, of its chain and last its downsample."""

    weights: list[Tensor]
    dtype: torch.dtype  # that they compute in
    shape: tuple[int, ...]  # of the block's output


_BLOCKS: DerivedCache[Layouts | None] = DerivedCache(4)


@dataclass(frozen=True)
class EngineStem(Prepared):
    """A stem: convolution, affine, ReLU and pooling. Computed in fp32 on bf16, the result is rounded."""

    layout: Tensor
    scale: Tensor
    shift: Tensor
    dtype: torch.dtype  # that it computes in
    shape: tuple[int, ...]

    def __call__(self, x: Tensor) -> Tensor:
        out: Tensor = OPS.stem_packed.default(x.to(self.dtype), self.layout, self.scale, self.shift)
        return out.to(x.dtype)

    def joined(self, others: Sequence[Prepared]) -> Prepared:
        return EngineSequence.of(self, *others)


def prepare_stem(x: Tensor, layer: Layer) -> Prepared | None:
    """A stem with frozen BatchNorm, or ``None``: oneDNN serves its convolution."""
    algorithm = choose(x.shape, x.dtype, layer.weight.shape, *layer.geometry)
    if algorithm is None:
        return None
    n, k, *size = conv_output_shape(x.shape, layer.weight.shape, layer.geometry)
    shape = n, k, *((pixels - 1) // 2 + 1 for pixels in size)  # pooled
    weights = packed(layer.weight, layer.geometry, algorithm)
    return EngineStem(weights, *_affine(layer), algorithm.dtype, shape)


def _affine(layer: Layer) -> tuple[Tensor, Tensor]:
    assert layer.running_mean is not None and layer.running_var is not None
    return running_affine(layer.gamma, layer.beta, layer.running_mean, layer.running_var, layer.eps)


@dataclass(frozen=True)
class EngineBlocks(Prepared):
    """Blocks for ``blocks_packed``: operands of each block's chain and then its skip, block after block.

    Computed in fp32 on bf16, each block's result is rounded, alone as beside others.
    """

    dtype: torch.dtype  # that they compute in
    shape: tuple[int, ...]
    layouts: list[Tensor]
    scales: list[Tensor]
    shifts: list[Tensor]
    convs: list[int]
    downsamples: list[int]  # 0 or 1

    def __call__(self, x: Tensor) -> Tensor:
        rounds = x.dtype != self.dtype
        out: Tensor = OPS.blocks_packed.default(x.to(self.dtype), *self._operands(), rounds)
        return out.to(x.dtype)

    def joined(self, others: Sequence[Prepared]) -> Prepared | None:
        blocks = [other for other in others if isinstance(other, EngineBlocks) and other.dtype == self.dtype]
        if len(blocks) < len(others):
            return None
        every = zip(*(each._operands() for each in (self, *blocks)), strict=True)
        operands = (list(itertools.chain.from_iterable(operand)) for operand in every)
        return EngineBlocks(self.dtype, (self, *blocks)[-1].shape, *operands)

    def _operands(self) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[int], list[int]]:
        return self.layouts, self.scales, self.shifts, self.convs, self.downsamples


@dataclass(frozen=True)
class EngineHead(Prepared):
    """A network's end: the mean over all pixels, and a linear layer of that."""

    weight: Tensor
    bias: Tensor | None
    shape: tuple[int, ...]

    def __call__(self, x: Tensor) -> Tensor:
        out: Tensor = OPS.avgpool_linear.default(x, self.weight, self.bias)
        return out

    def joined(self, others: Sequence[Prepared]) -> Prepared:
        return EngineSequence.of(self, *others)


@dataclass(frozen=True)
class EngineSequence(Prepared):
    """One after the other: a stem, a network's blocks, its head."""

    steps: tuple[Prepared, ...]
    shape: tuple[int, ...]

    @classmethod
    def of(cls, *steps: Prepared) -> EngineSequence:
        return cls(steps, steps[-1].shape)

    def __call__(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = step(x)
        return x

    def joined(self, others: Sequence[Prepared]) -> Prepared:
        return EngineSequence.of(*self.steps, *others)


#: With more images ATen's matrix product is faster: 1.3 times at 64 in fp32, 0.77 of ours at 16.
MOST_HEAD_IMAGES = 32


def prepare_head(x: Tensor, weight: Tensor, bias: Tensor | None) -> EngineHead | None:
    """The head as one call, or ``None``: ATen serves it better, or what does not fit it is refused there."""
    if x.shape[0] > MOST_HEAD_IMAGES or x.numel() == 0 or weight.dim() != 2 or not weight.is_contiguous():
        return None
    fits = weight.shape[1] == x.shape[1] and (bias is None or bias.shape == weight.shape[:1])
    alike = all(t is None or (t.dtype, t.device) == (x.dtype, x.device) for t in (weight, bias))
    return EngineHead(weight, bias, (x.shape[0], weight.shape[0])) if fits and alike else None


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
    threads = torch.get_num_threads()
    switches = threads, PRECISION.get()
    variant = (tuple(x.shape), tuple(stride), tuple(dilation), groups, downsample is None, *switches)
    layouts = _BLOCKS.get(
        weights[0],
        tuple(weights[1:]),
        variant,
        lambda: pack_block(x, weights, geometries, downsample is not None),
    )
    if layouts is None:
        return None
    scales, shifts = ([operands[i] for operands in every] for i in (1, 2))
    downsamples = len(every) - 3
    return EngineBlocks(layouts.dtype, layouts.shape, layouts.weights, scales, shifts, [3], [downsamples])(x)


def pack_block(
    x: Tensor, weights: Sequence[Tensor], geometries: Sequence[Geometry], downsample: bool
) -> Layouts | None:
    """A block's operands for one call; ``None`` where oneDNN serves a convolution, or they differ in type."""
    algorithms = []
    shape: Ints = x.shape
    for i, (weight, geometry) in enumerate(zip(weights, geometries, strict=True)):
        if downsample and i + 1 == len(weights):
            shape = x.shape  # what comes of it has the shape of what comes of the chain
        algorithm = choose(shape, x.dtype, weight.shape, *geometry)
        if algorithm is None:
            return None
        algorithms.append(algorithm)
        shape = conv_output_shape(shape, weight.shape, geometry)
    dtypes = {algorithm.dtype for algorithm in algorithms}
    if len(dtypes) > 1:
        return None
    return Layouts(list(map(packed, weights, geometries, algorithms)), dtypes.pop(), tuple(shape))


def prepare_block(x: Tensor, chain: Sequence[Layer], downsample: Layer | None) -> Prepared | None:
    """A basic block or bottleneck with frozen BatchNorm as one call of the engine, or ``None``: oneDNN."""
    every = list(chain) if downsample is None else [*chain, downsample]
    if len(chain) not in (2, 3):
        return None
    weights, geometries = [layer.weight for layer in every], [layer.geometry for layer in every]
    layouts = pack_block(x, weights, geometries, downsample is not None)
    if layouts is None:
        return None
    scales, shifts = (list(column) for column in zip(*map(_affine, every), strict=True))
    counts = [len(chain)], [len(every) - len(chain)]
    return EngineBlocks(layouts.dtype, layouts.shape, layouts.weights, scales, shifts, *counts)
