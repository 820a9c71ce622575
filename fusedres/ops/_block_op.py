"""The torch ops behind residual blocks: schema, shape function, autograd; one shared backward op.

``fusedres::conv_bn_act``, ``::basic_block`` and ``::bottleneck`` differ in the length of their chain
alone. Each returns its output, what backward needs besides, and the batch statistics; the latter are
non-differentiable outputs, so that everything is visible to ``torch.compile`` and ``torch.export``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fusedres.ops import _residual, _residual_backward
from fusedres.ops._residual import Block, Layer, Method, Statistics
from fusedres.ops._shapes import Geometry, accumulate_dtype, conv_output_shape, empty_nhwc

LIBRARY = torch.library.Library("fusedres", "FRAGMENT")  # type: ignore[no-untyped-call]

#: Tensors a layer brings to an op: weight, gamma, beta, running mean, running variance.
LAYER_TENSORS = 5

_METHOD_ARGS = "str backend, str composition, bool recompute, str precision"

#: Places of the arguments that follow the tensors.
_GEOMETRY, _RELU, _BATCH_STATS, _SAVE, _BACKEND, _COMPOSITION, _RECOMPUTE, _PRECISION = range(1, 9)


def flat_geometry(geometries: Sequence[Geometry]) -> list[int]:
    """Seven ints a layer: stride, padding, dilation (two each), groups."""
    return [n for g in geometries for n in (*g.stride, *g.padding, *g.dilation, g.groups)]


def parse_geometry(flat: Sequence[int]) -> list[Geometry]:
    return [
        Geometry((sh, sw), (ph, pw), (dh, dw), groups)
        for sh, sw, ph, pw, dh, dw, groups in (flat[i : i + 7] for i in range(0, len(flat), 7))
    ]


def statistics_of(flat: Sequence[Tensor]) -> list[Statistics]:
    return [Statistics(*flat[i : i + 5]) for i in range(0, len(flat), 5)]


def refuse_double_backward(op: str) -> Any:
    """An autograd kernel for a backward op: it has no gradient of its own, and says so."""

    def refuse(keyset: torch._C.DispatchKeySet, *args: Any) -> Any:
        flat = [t for a in args for t in (a if isinstance(a, (list, tuple)) else (a,))]
        if torch.is_grad_enabled() and any(isinstance(t, Tensor) and t.requires_grad for t in flat):
            raise RuntimeError(
                f"fusedres::{op}: double backward (create_graph=True) is not supported by fused blocks; "
                'run the block under fusedres.composition("plain"), or fusedres.unfuse(model)'
            )
        with torch._C._AutoDispatchBelowAutograd():
            overload = getattr(torch.ops.fusedres, op).default
            return overload.redispatch(keyset & torch._C._after_autograd_keyset, *args)

    return refuse


class BlockOp:
    """One op for a chain of layers, with a downsample or a residual tensor as its skip.

    ``filters`` has one entry a layer: (R, S) where that is fixed, else ``None``.
    """

    def __init__(
        self, name: str, filters: Sequence[tuple[int, int] | None], *, downsample: bool, residual: bool
    ) -> None:
        self.name = name
        self.filters = filters
        self.length = length = len(filters)
        self.downsample = downsample
        self.residual = residual
        layers = [str(i + 1) for i in range(length)] + (["d"] if downsample else [])
        self.layer_count = len(layers)
        tensors = ["Tensor x"]
        for s in layers:
            weight = f"Tensor? w{s}" if s == "d" else f"Tensor w{s}"
            tensors.append(
                f"{weight}, Tensor? gamma{s}, Tensor? beta{s},"
                f" Tensor? running_mean{s}, Tensor? running_var{s}"
            )
        tensors.append("Tensor? residual")
        LIBRARY.define(  # type: ignore[no-untyped-call]
            f"{name}({', '.join(tensors)}, float[] eps, int[] geometry, bool relu, bool batch_stats,"
            f" bool save, {_METHOD_ARGS}) -> (Tensor out, Tensor[] kept, Tensor[] statistics)"
        )
        LIBRARY.impl(name, self._forward, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
        torch.library.register_fake(f"fusedres::{name}", self._fake, lib=LIBRARY)
        torch.library.register_autograd(
            f"fusedres::{name}", self._backward, setup_context=self._setup_context, lib=LIBRARY
        )

    def __call__(self, *args: Any) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        out, kept, statistics = getattr(torch.ops.fusedres, self.name).default(*args)
        return out, kept, statistics

    def _parse(self, args: Sequence[Any]) -> tuple[Tensor, Tensor | None, Block]:
        """Arguments in schema order -> x, residual, block."""
        tensors = 1 + LAYER_TENSORS * self.layer_count
        eps, flat, relu, batch_stats = args[tensors + 1 : tensors + 5]
        geometries = parse_geometry(flat)
        layers = [
            Layer._make((*args[1 + LAYER_TENSORS * i : 1 + LAYER_TENSORS * (i + 1)], eps[i], geometries[i]))
            for i in range(len(geometries))
        ]
        chain, rest = layers[: self.length], layers[self.length :]
        return args[0], args[tensors], Block(chain, rest[0] if rest else None, relu, batch_stats)

    def _tail(self, args: Sequence[Any], place: int) -> Any:
        return args[1 + LAYER_TENSORS * self.layer_count + 1 + place]

    def _method(self, args: Sequence[Any]) -> Method:
        places = _BACKEND, _COMPOSITION, _RECOMPUTE, _PRECISION
        return Method._make(self._tail(args, place) for place in places)

    def _forward(self, *args: Any) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        x, residual, block = self._parse(args)
        save = self._tail(args, _SAVE)
        out, kept, statistics = _residual.forward(
            self._method(args), block, x, self._skip(x, residual, block), save
        )
        return out, kept, [t for s in statistics for t in s]

    def _skip(self, x: Tensor, residual: Tensor | None, block: Block) -> Tensor | None:
        """What is added at the join as it is: the caller's residual, or a block's own input."""
        return residual if self.residual else (x if block.downsample is None else None)

    def _fake(self, *args: Any) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        x, _, block = self._parse(args)
        save = self._tail(args, _SAVE)
        shapes: list[Sequence[int]] = []
        shape: Sequence[int] = x.shape
        for layer in block.chain:
            shape = conv_output_shape(shape, layer.weight.shape, layer.geometry)
            shapes.append(shape)
        out = empty_nhwc(x, shape)
        if block.batch_stats:
            if _residual.recomputes_last(self._method(args), block):
                shapes.pop()
            if block.downsample is not None:
                shapes.append(shape)
        else:
            shapes.pop()
        statistics = [
            x.new_empty(layer.weight.shape[0], dtype=accumulate_dtype(x.dtype))
            for layer in (block.layers if save or block.batch_stats else [])
            for _ in range(5)
        ]
        return out, [empty_nhwc(x, s) for s in shapes] if save else [], statistics

    def _setup_context(self, ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        out, kept, statistics = output
        _, residual, block = self._parse(inputs)
        ctx.mark_non_differentiable(*kept, *statistics)
        ctx.set_materialize_grads(False)
        # A lone layer with batch statistics is masked by its own y; every other ReLU by its output.
        joined = self._skip(inputs[0], residual, block) is not None or block.downsample is not None
        keep_out = block.relu and (joined or not block.batch_stats)
        layers = block.layers
        ctx.save_for_backward(
            inputs[0],
            out if keep_out else None,
            *(layer.weight for layer in layers),
            *(layer.gamma for layer in layers),
            *(layer.beta for layer in layers),
            *kept,
            *statistics,
        )
        ctx.count = len(layers)
        ctx.kept = len(kept)
        ctx.geometry = list(self._tail(inputs, _GEOMETRY))
        ctx.flags = (block.downsample is not None, block.relu, block.batch_stats, not self.residual)
        ctx.method = self._method(inputs)

    def _backward(self, ctx: Any, dout: Tensor | None, _kept: Any, _statistics: Any) -> tuple[Any, ...]:
        arguments = 1 + LAYER_TENSORS * self.layer_count + 1 + _PRECISION + 1
        if dout is None:
            return (None,) * arguments
        x, out, *rest = ctx.saved_tensors
        n = ctx.count
        weights, gammas, betas = rest[:n], rest[n : 2 * n], rest[2 * n : 3 * n]
        kept, statistics = rest[3 * n : 3 * n + ctx.kept], rest[3 * n + ctx.kept :]
        needs = ctx.needs_input_grad
        residual_at = 1 + LAYER_TENSORS * self.layer_count
        starts = [1 + LAYER_TENSORS * i for i in range(n)]
        downsample, relu, batch_stats, own_input = ctx.flags
        dx, dresidual, dws, dgammas, dbetas = torch.ops.fusedres.residual_backward.default(
            dout.contiguous(memory_format=torch.channels_last), x, out, weights, gammas, betas, kept,
            statistics, ctx.geometry, downsample, relu, batch_stats, own_input and not downsample,
            needs[0], needs[residual_at],
            [needs[s] for s in starts], [needs[s + 1] or needs[s + 2] for s in starts],
            *ctx.method,
        )  # fmt: skip
        grads: list[Tensor | None] = [None] * arguments
        grads[0] = dx if needs[0] else None
        for i, s in enumerate(starts):
            grads[s] = dws[i] if needs[s] else None
            grads[s + 1] = dgammas[i] if needs[s + 1] else None
            grads[s + 2] = dbetas[i] if needs[s + 2] else None
        if needs[residual_at]:
            grads[residual_at] = dresidual if relu else dout
        return tuple(grads)


LIBRARY.define(  # type: ignore[no-untyped-call]
    "residual_backward(Tensor dout, Tensor x, Tensor? out, Tensor[] weights, Tensor?[] gammas,"
    " Tensor?[] betas, Tensor[] kept, Tensor[] statistics, int[] geometry, bool downsample, bool relu,"
    " bool batch_stats, bool identity, bool need_x, bool need_residual, bool[] need_weight, bool[] need_bn,"
    f" {_METHOD_ARGS}) -> (Tensor dx, Tensor dresidual, Tensor[] dweights, Tensor[] dgammas, Tensor[] dbetas)"
)


def _residual_backward_impl(
    dout: Tensor,
    x: Tensor,
    out: Tensor | None,
    weights: list[Tensor],
    gammas: list[Tensor | None],
    betas: list[Tensor | None],
    kept: list[Tensor],
    statistics: list[Tensor],
    geometry: list[int],
    downsample: bool,
    relu: bool,
    batch_stats: bool,
    identity: bool,
    need_x: bool,
    need_residual: bool,
    need_weight: list[bool],
    need_bn: list[bool],
    backend: str,
    composition: str,
    recompute: bool,
    precision: str,
) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor], list[Tensor]]:
    layers = [
        Layer(w, gamma, beta, None, None, 0.0, g)
        for w, gamma, beta, g in zip(weights, gammas, betas, parse_geometry(geometry), strict=True)
    ]
    chain, skip = (layers[:-1], layers[-1]) if downsample else (layers, None)
    grads = _residual_backward.backward(
        Method(backend, composition, recompute, precision),
        Block(chain, skip, relu, batch_stats),
        dout,
        _residual_backward.Saved(x, out, kept, statistics_of(statistics)),
        identity,
        _residual_backward.Needs(need_x, need_residual, need_weight, need_bn),
    )
    count = range(len(layers))
    return (
        _or_absent(grads.x, x),
        _or_absent(grads.residual, x),
        [weight_gradient(grads.weight.get(i), weights[i]) for i in count],
        [_or_absent(grads.gamma.get(i), x) for i in count],
        [_or_absent(grads.beta.get(i), x) for i in count],
    )


def weight_gradient(dw: Tensor | None, w: Tensor) -> Tensor:
    """``dw`` laid out as ``w`` is, so that autograd keeps it without a copy of its own; empty if absent."""
    if dw is None:
        return w.new_empty(0)
    wanted = torch.empty_like(w, device="meta").stride()
    if dw.stride() == wanted:
        return dw
    # A 1×1 filter lies the same in both layouts, only its strides are written differently.
    if all(n == 1 or a == b for n, a, b in zip(w.shape, dw.stride(), wanted, strict=True)):
        return dw.as_strided(w.shape, wanted)
    return torch.empty_like(w).copy_(dw)


def _or_absent(grad: Tensor | None, like: Tensor) -> Tensor:
    return like.new_empty(0) if grad is None else grad


def _residual_backward_fake(
    dout: Tensor, x: Tensor, out: Tensor | None, weights: list[Tensor], gammas: list[Tensor | None],
    betas: list[Tensor | None], kept: list[Tensor], statistics: list[Tensor], geometry: list[int],
    downsample: bool, relu: bool, batch_stats: bool, identity: bool, need_x: bool, need_residual: bool,
    need_weight: list[bool], need_bn: list[bool], backend: str, composition: str, recompute: bool,
    precision: str,
) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor], list[Tensor]]:  # fmt: skip
    def bn(parameters: list[Tensor | None]) -> list[Tensor]:
        wide = accumulate_dtype(x.dtype)
        return [
            w.new_empty(w.shape[0], dtype=wide if p is None else p.dtype) if need else x.new_empty(0)
            for w, p, need in zip(weights, parameters, need_bn, strict=True)
        ]

    return (
        empty_nhwc(x, x.shape) if need_x else x.new_empty(0),
        empty_nhwc(x, dout.shape) if need_residual and relu else x.new_empty(0),
        [
            torch.empty_like(w) if need else w.new_empty(0)
            for w, need in zip(weights, need_weight, strict=True)
        ],
        bn(gammas),
        bn(betas),
    )


LIBRARY.impl("residual_backward", _residual_backward_impl, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
LIBRARY.impl("residual_backward", refuse_double_backward("residual_backward"), "Autograd", with_keyset=True)  # type: ignore[no-untyped-call]
torch.library.register_fake("fusedres::residual_backward", _residual_backward_fake, lib=LIBRARY)
