"""How a residual block is composed of kernel ops, forward and backward.

A block is a chain of convolution + BatchNorm layers with ReLU between them, then a join: the chain's
end, plus an identity or a downsample's convolution + BatchNorm, then ReLU. ``conv_bn_act`` is a chain
of one, ``basic_block`` of two, ``bottleneck`` of three. Three compositions exist for batch statistics
(``pointwise``, ``stats``, ``mainloop``); frozen BatchNorm is one ``conv_affine_act`` a layer in all.

What is kept for backward is each convolution's raw output y (batch statistics), or each inner
activation (frozen). Activated copies and ReLU masks are formed again: they follow from y·scale + shift.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fusedres._settings import PRECISION, as_it_was
from fusedres.ops._caches import frozen_statistics, running_affine
from fusedres.ops._registry import kernel
from fusedres.ops._shapes import Geometry


class Layer(NamedTuple):
    """A convolution and the BatchNorm behind it."""

    weight: Tensor
    gamma: Tensor | None
    beta: Tensor | None
    running_mean: Tensor | None
    running_var: Tensor | None
    eps: float
    geometry: Geometry


class Statistics(NamedTuple):
    """A BatchNorm's statistics and its affine, (C,) each, fp32."""

    mean: Tensor
    var: Tensor
    invstd: Tensor
    scale: Tensor
    shift: Tensor

    @property
    def affine(self) -> tuple[Tensor, Tensor]:
        return self.scale, self.shift


class Method(NamedTuple):
    """How the arithmetic is done: the back-end, the composition, what backward forms again, the precision."""

    backend: str
    composition: str
    recompute: bool
    precision: str


class Block(NamedTuple):
    """The structure of a block: its chain, the downsample of its skip, and whether it ends in ReLU."""

    chain: Sequence[Layer]
    downsample: Layer | None
    relu: bool
    batch_stats: bool

    @property
    def layers(self) -> list[Layer]:
        """Chain first, downsample last: the order of weights, kept tensors and statistics."""
        return [*self.chain, *([self.downsample] if self.downsample else [])]


def recomputes_last(method: Method, block: Block) -> bool:
    """``memory("recompute")`` drops a bottleneck's last y: its 1×1 convolution is the cheap one."""
    last = block.chain[-1]
    return (
        method.recompute and block.batch_stats and len(block.chain) == 3 and last.weight.shape[2:] == (1, 1)
    )


# --- convolutions under each composition -------------------------------------------------------------


def library_conv(x: Tensor, w: Tensor, g: Geometry) -> Tensor:
    y: Tensor = torch.ops.aten.convolution.default(
        x, w, None, g.stride, g.padding, g.dilation, False, (0, 0), g.groups
    )
    return y.contiguous(memory_format=torch.channels_last)


def library_conv_backward(
    dy: Tensor, x: Tensor, w: Tensor, g: Geometry, need_dx: bool, need_dw: bool
) -> tuple[Tensor | None, Tensor | None]:
    dx, dw, _ = torch.ops.aten.convolution_backward.default(
        dy, x, w, None, g.stride, g.padding, g.dilation, False, (0, 0), g.groups, (need_dx, need_dw, False)
    )
    return (dx.contiguous(memory_format=torch.channels_last) if need_dx else None), (dw if need_dw else None)


def conv_batch_stats(
    method: Method, x: Tensor, affine: tuple[Tensor, Tensor] | None, layer: Layer
) -> tuple[Tensor, Statistics]:
    """One layer's raw output and its batch statistics; ``affine`` activates ``x`` as it is loaded."""
    backend = method.backend
    if method.composition == "pointwise":
        y = library_conv(x, layer.weight, layer.geometry)
        partials = kernel(backend, "bn_stats")(y)
    else:
        in_scale, in_shift = affine or (None, None)
        y, *partials = kernel(backend, "conv_stats")(x, layer.weight, in_scale, in_shift, *layer.geometry)
    return y, Statistics(*kernel(backend, "bn_finalize")(*partials, layer.gamma, layer.beta, layer.eps))


def activate(method: Method, y: Tensor, affine: tuple[Tensor, Tensor]) -> Tensor:
    z: Tensor = kernel(method.backend, "affine_add_act")(y, *affine, None, None, None, True)
    return z


# --- forward -----------------------------------------------------------------------------------------


def forward(
    method: Method, block: Block, x: Tensor, residual: Tensor | None, save: bool
) -> tuple[Tensor, list[Tensor], list[Statistics]]:
    """Run a block; the skip is ``residual`` as it is, or the downsample of ``x``.

    Returns:
        The output; what backward needs besides it (empty without ``save``); the statistics of each
        layer (empty for frozen BatchNorm without ``save``).
    """
    run = _forward_batch_stats if block.batch_stats else _forward_frozen
    with as_it_was(PRECISION, method.precision):
        return run(method, block, x, residual, save)


def _forward_batch_stats(
    method: Method, block: Block, x: Tensor, residual: Tensor | None, save: bool
) -> tuple[Tensor, list[Tensor], list[Statistics]]:
    ys: list[Tensor] = []
    statistics: list[Statistics] = []
    z, affine = x, None
    for layer in block.chain:
        if ys:
            if method.composition == "mainloop":
                z, affine = ys[-1], statistics[-1].affine
            else:
                z = activate(method, ys[-1], statistics[-1].affine)
        y, stats = conv_batch_stats(method, z, affine, layer)
        ys.append(y)
        statistics.append(stats)
    y, stats = ys[-1], statistics[-1]
    join = kernel(method.backend, "affine_add_act")
    if block.downsample is not None:
        y_skip, stats_skip = conv_batch_stats(method, x, None, block.downsample)
        out = join(y, *stats.affine, y_skip, *stats_skip.affine, block.relu)
        ys.append(y_skip)
        statistics.append(stats_skip)
    else:
        out = join(y, *stats.affine, residual, None, None, block.relu)
    if recomputes_last(method, block):
        del ys[len(block.chain) - 1]
    return out, ys if save else [], statistics


def _forward_frozen(
    method: Method, block: Block, x: Tensor, residual: Tensor | None, save: bool
) -> tuple[Tensor, list[Tensor], list[Statistics]]:
    statistics = [frozen_layer_statistics(layer) for layer in block.layers] if save else []
    affines = [s.affine for s in statistics] if save else [_running_affine(layer) for layer in block.layers]
    if len(block.chain) == 3 and not save and block.relu:
        return _bottleneck_infer(method, block, x, affines), [], []
    fused = kernel(method.backend, "conv_affine_act")
    kept: list[Tensor] = []
    z = x
    for layer, affine in zip(block.chain[:-1], affines, strict=False):
        z = fused(z, layer.weight, *affine, None, True, *layer.geometry)
        kept.append(z)
    if block.downsample is not None:
        residual = fused(x, block.downsample.weight, *affines[-1], None, False, *block.downsample.geometry)
    last = len(block.chain) - 1
    out = fused(
        z, block.chain[last].weight, *affines[last], residual, block.relu, *block.chain[last].geometry
    )
    return out, kept if save else [], statistics


def _bottleneck_infer(
    method: Method, block: Block, x: Tensor, affines: list[tuple[Tensor, Tensor]]
) -> Tensor:
    operands: list[Tensor | None] = []
    for layer, affine in zip(block.layers, affines, strict=True):
        operands += [layer.weight, *affine]
    if block.downsample is None:
        operands += [None, None, None]
    g = block.chain[1].geometry
    out: Tensor = kernel(method.backend, "bottleneck_infer")(x, *operands, g.stride, g.dilation, g.groups)
    return out


def frozen_layer_statistics(layer: Layer) -> Statistics:
    assert layer.running_mean is not None and layer.running_var is not None
    return Statistics(
        *frozen_statistics(layer.gamma, layer.beta, layer.running_mean, layer.running_var, layer.eps)
    )


def _running_affine(layer: Layer) -> tuple[Tensor, Tensor]:
    assert layer.running_mean is not None and layer.running_var is not None
    return running_affine(layer.gamma, layer.beta, layer.running_mean, layer.running_var, layer.eps)
