"""The uses of a convolution in ResNet-50: forward in inference, forward in training, and both gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.shapes import Layer
from fusedres import ops

Run = Callable[[], object]


def vectors(count: int, channels: int) -> list[Tensor]:
    return [torch.rand(channels, device="cuda") for _ in range(count)]


@dataclass(frozen=True)
class Use:
    """``prepare(layer, x, y, backend)`` makes the operands and gives the call; y is an output."""

    prepare: Callable[[Layer, Tensor, Tensor, str], Run]
    on_stem: bool = True
    after_activation: bool = False

    def serves(self, layer: Layer) -> bool:
        first = layer.name.endswith((".conv1", "downsample.0"))
        return (self.on_stem or layer.channels > 3) and not (self.after_activation and first)


def weight(layer: Layer) -> Tensor:
    return torch.randn(layer.w_shape).bfloat16().to("cuda", memory_format=torch.channels_last)


def infer(layer: Layer, x: Tensor, y: Tensor, backend: str) -> Run:
    """With the affine and ReLU; the last of a bottleneck also adds the residual."""
    w, affine = weight(layer), vectors(2, layer.filters)
    residual = y if layer.name.endswith(".conv3") else None
    relu = not layer.name.endswith("downsample.0")
    return lambda: ops.conv_affine_act(x, w, *affine, residual, relu, **layer.geometry, backend=backend)


def stats(layer: Layer, x: Tensor, y: Tensor, backend: str) -> Run:
    w = weight(layer)
    return lambda: ops.conv_stats(x, w, **layer.geometry, backend=backend)


def stats_activated(layer: Layer, x: Tensor, y: Tensor, backend: str) -> Run:
    """The input is activated as it is loaded."""
    w, affine = weight(layer), vectors(2, layer.channels)
    return lambda: ops.conv_stats(x, w, *affine, **layer.geometry, backend=backend)


def dgrad_arguments(layer: Layer, x: Tensor) -> dict[str, Any]:
    """Of a bottleneck's first convolution: the sum with the skip's gradient. Of others: ReLU's mask, sums."""
    if layer.name.endswith("downsample.0"):
        return {"add": x}
    if layer.name.endswith(".conv1"):
        return {"add": x}
    names = ("prev_s", "prev_t", "prev_mean", "prev_invstd")
    return {"prev_y": x, **dict(zip(names, vectors(4, layer.channels), strict=True))}


def dgrad(layer: Layer, x: Tensor, y: Tensor, backend: str) -> Run:
    w, arguments = weight(layer), dgrad_arguments(layer, x)
    return lambda: ops.conv_dgrad(y, w, x_shape=x.shape, **arguments, **layer.geometry, backend=backend)


def dgrad_formed(layer: Layer, x: Tensor, y: Tensor, backend: str) -> Run:
    """dy is formed of dz and y as it is loaded."""
    w, arguments, (p, q, r) = weight(layer), dgrad_arguments(layer, x), vectors(3, layer.filters)
    raw = torch.randn_like(y)
    return lambda: ops.conv_dgrad(
        y, w, raw, p, q, r, x_shape=x.shape, **arguments, **layer.geometry, backend=backend
    )


def wgrad_arguments(layer: Layer) -> dict[str, Any]:
    """Shape and layout of the gradient: the weight's, channels_last where that differs from contiguous."""
    return {"w_shape": layer.w_shape, "channels_last": layer.kernel > 1, **layer.geometry}


def wgrad(layer: Layer, x: Tensor, y: Tensor, backend: str) -> Run:
    """As ``stats`` calls it: dy as it is, the input activated on load where it is an inner one."""
    inner = layer.name.endswith((".conv2", ".conv3"))
    affine = vectors(2, layer.channels) if inner else (None, None)
    return lambda: ops.conv_wgrad(x, y, *affine, **wgrad_arguments(layer), backend=backend)


def wgrad_formed(layer: Layer, x: Tensor, y: Tensor, backend: str) -> Run:
    """As ``mainloop`` calls it: dy formed as well."""
    inner = layer.name.endswith((".conv2", ".conv3"))
    affine = vectors(2, layer.channels) if inner else (None, None)
    raw, (p, q, r) = torch.randn_like(y), vectors(3, layer.filters)
    return lambda: ops.conv_wgrad(x, y, *affine, raw, p, q, r, **wgrad_arguments(layer), backend=backend)


USES = {
    "infer": Use(infer),
    "stats": Use(stats),
    "stats, input activated": Use(stats_activated, on_stem=False, after_activation=True),
    "dgrad": Use(dgrad, on_stem=False),
    "dgrad, dy formed": Use(dgrad_formed, on_stem=False),
    "wgrad": Use(wgrad),
    "wgrad, dy formed": Use(wgrad_formed),
}
