"""The algorithms of one convolution side by side, for a plan to time: the engine's, and oneDNN."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import nn

from fusedres.backends.cpu import engine
from fusedres.backends.cpu._onednn import (
    can_fuse,
    convolution,
    fused_conv,
    input_gradient,
    weight_gradient,
)
from fusedres.backends.cpu.engine import ONEDNN, Algorithm
from fusedres.ops._planned import Convolution
from fusedres.ops._shapes import Geometry, conv_output_shape

Call = Callable[[], object]

#: A weight gradient has kernels of its own.
_WGRAD = (Algorithm.DIRECT_F32, Algorithm.WINOGRAD_F32, Algorithm.DIRECT_BF16_AMX)


def algorithms(convolution: Convolution) -> Mapping[str, Call]:
    """A call for each algorithm that can run here, on random operands; the one by rule comes first."""
    geometry = convolution.stride, convolution.dilation, convolution.groups
    own: torch.dtype = getattr(torch, convolution.dtype)
    dtypes = {own, engine.arithmetic(own)}
    served = [
        algorithm
        for algorithm in Algorithm
        if algorithm.dtype in dtypes
        and engine.runs(algorithm)
        and engine.takes(algorithm, convolution.w, *geometry)
        and (algorithm not in engine.FAST or convolution.precision == "fast")
    ]
    calls = _MAKERS[convolution.use](convolution, served)
    default = engine.by_rule(convolution)[0]
    return {name: calls[name] for name in sorted(calls, key=lambda name: name != default)}


def _operands(convolution: Convolution) -> tuple[torch.Tensor, torch.Tensor, Geometry]:
    dtype: torch.dtype = getattr(torch, convolution.dtype)
    generator = torch.Generator().manual_seed(0)
    x, w = (
        torch.randn(shape, generator=generator).to(dtype).contiguous(memory_format=torch.channels_last)
        for shape in (convolution.x, convolution.w)
    )
    (sh, sw), (ph, pw), (dh, dw) = convolution.stride, convolution.padding, convolution.dilation
    return x, w, Geometry((sh, sw), (ph, pw), (dh, dw), convolution.groups)


def _inference(convolution: Convolution, served: list[Algorithm]) -> dict[str, Call]:
    """With an affine and ReLU, weights packed before.

    What was packed is kept for parameters alone; two forms of one are, so each algorithm has its own.
    """
    x, w, g = _operands(convolution)
    scale, shift = torch.ones(w.shape[0]), torch.zeros(w.shape[0])

    def parameter() -> nn.Parameter:
        return nn.Parameter(w.clone(), requires_grad=False)

    calls: dict[str, Call] = {
        algorithm.name.lower(): partial(engine.conv, x, parameter(), scale, shift, None, True, g, algorithm)
        for algorithm in served
    }
    if can_fuse(x):
        own_scale = nn.Parameter(scale, requires_grad=False)  # folded into the packed weights
        calls[ONEDNN] = partial(fused_conv, x, parameter(), own_scale, shift, None, True, *g)
    return calls


def _training(convolution: Convolution, served: list[Algorithm]) -> dict[str, Call]:
    """Packing included; a dgrad is oneDNN's own against a forward convolution with turned filters."""
    x, w, g = _operands(convolution)
    calls: dict[str, Call] = {
        algorithm.name.lower(): partial(engine.conv_once, x, w, None, g.stride, g.padding, algorithm)
        for algorithm in served
    }
    if convolution.use == "fprop":
        calls[ONEDNN] = partial(_convolution, x, w, g)
        return calls
    # Here x is dy and w the turned filters: oneDNN's operands are what they came from.
    forward = w.flip(2, 3).transpose(0, 1).contiguous(memory_format=torch.channels_last)
    rows, cols = w.shape[2:]
    padding = (rows - 1 - g.padding[0], cols - 1 - g.padding[1])
    x_shape = conv_output_shape(x.shape, w.shape, g)
    calls[ONEDNN] = partial(input_gradient, x, x_shape, forward, g.stride, padding, g.dilation, g.groups)
    for algorithm in served:
        calls[algorithm.name.lower()] = partial(_turned, x, forward, g, algorithm)
    return calls


def _strided_dgrad(convolution: Convolution, served: list[Algorithm]) -> dict[str, Call]:
    """Of the largest input that gives such a dy: packing included."""
    dy, turned, g = _operands(convolution)
    sizes = (
        out * stride + taps - 1 - 2 * pad
        for out, stride, taps, pad in zip(dy.shape[2:], g.stride, turned.shape[2:], g.padding, strict=True)
    )
    x_shape = (dy.shape[0], turned.shape[0], *sizes)
    w = turned.transpose(0, 1).contiguous(memory_format=torch.channels_last)
    calls: dict[str, Call] = {
        algorithm.name.lower(): partial(
            engine.dgrad_strided, dy, w, None, x_shape, g.stride, g.padding, algorithm
        )
        for algorithm in served
    }
    calls[ONEDNN] = partial(input_gradient, dy, x_shape, w, *g)
    return calls


def _wgrad(convolution: Convolution, served: list[Algorithm]) -> dict[str, Call]:
    x, w, g = _operands(convolution)
    dy = torch.ones_like(_convolution(x, w, g))
    calls: dict[str, Call] = {
        algorithm.name.lower(): partial(
            engine.wgrad, x, dy, None, None, convolution.w, g.stride, g.padding, algorithm, True
        )
        for algorithm in served
        if algorithm in _WGRAD
    }
    calls[ONEDNN] = partial(weight_gradient, dy, x, convolution.w, *g)
    return calls


def _convolution(x: torch.Tensor, w: torch.Tensor, g: Geometry) -> torch.Tensor:
    return convolution(x, w, *g)


def _turned(dy: torch.Tensor, w: torch.Tensor, g: Geometry, algorithm: Algorithm) -> torch.Tensor:
    turned = (w if w.shape[2] * w.shape[3] == 1 else w.flip(2, 3)).transpose(0, 1)
    return engine.conv_once(dy, turned, None, g.stride, g.padding, algorithm)


_MAKERS: Mapping[str, Callable[[Convolution, list[Algorithm]], dict[str, Call]]] = {
    "infer": _inference,
    "fprop": _training,
    "dgrad": _training,
    "strided_dgrad": _strided_dgrad,
    "wgrad": _wgrad,
}
