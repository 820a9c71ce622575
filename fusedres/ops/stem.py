"""``fusedres.stem``: ResNet's 7×7 convolution, BatchNorm, ReLU and max-pool as one autograd function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fusedres._settings import PRECISION
from fusedres.ops import _checks, _prepared
from fusedres.ops._block_op import LIBRARY, parse_geometry, refuse_double_backward, weight_gradient
from fusedres.ops._caches import eagerly, running_affine
from fusedres.ops._dispatch import Prepared, resolve_backend
from fusedres.ops._functional import (
    ConvBN,
    autocast_to,
    check_layer,
    check_parts,
    check_wishes,
    choose_composition,
    plain_conv_bn,
    transformed,
    update_running,
    verify_batch,
)
from fusedres.ops._planned import Choice
from fusedres.ops._registry import kernel
from fusedres.ops._residual import (
    Layer,
    Method,
    Statistics,
    conv_batch_stats,
    frozen_layer_statistics,
    library_conv_backward,
)
from fusedres.ops._shapes import (
    Geometry,
    absent,
    accumulate_dtype,
    conv_output_shape,
    empty_nhwc,
    prefers_channels_last,
)
from fusedres.ops.affine_act_maxpool import pooled_shape

LIBRARY.define(  # type: ignore[no-untyped-call]
    "stem(Tensor x, Tensor w, Tensor? gamma, Tensor? beta, Tensor? running_mean, Tensor? running_var,"
    " float eps, int[] geometry, bool batch_stats, bool save, str backend, str composition)"
    " -> (Tensor out, Tensor[] kept, Tensor[] statistics)"
)
LIBRARY.define(  # type: ignore[no-untyped-call]
    "stem_backward(Tensor dout, Tensor x, Tensor w, Tensor? gamma, Tensor? beta, Tensor y, Tensor index,"
    " Tensor[] statistics, int[] geometry, bool batch_stats, bool need_x, bool need_weight, bool need_bn,"
    " str backend, str composition) -> (Tensor dx, Tensor dw, Tensor dgamma, Tensor dbeta)"
)


def _forward(
    x: Tensor,
    w: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    eps: float,
    geometry: list[int],
    batch_stats: bool,
    save: bool,
    backend: str,
    composition: str,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    layer = Layer(w, gamma, beta, running_mean, running_var, eps, parse_geometry(geometry)[0])
    statistics: Statistics | None = None
    if batch_stats:
        y, statistics = conv_batch_stats(Method(backend, composition, False, PRECISION.get()), x, None, layer)
        affine = statistics.affine
    else:
        y = kernel(backend, "conv_affine_act")(x, w, None, None, None, False, *layer.geometry)
        if save:
            statistics = frozen_layer_statistics(layer)
            affine = statistics.affine
        else:
            assert running_mean is not None and running_var is not None
            affine = running_affine(gamma, beta, running_mean, running_var, eps)
    out, index = kernel(backend, "affine_act_maxpool")(y, *affine)
    return out, [y, index] if save else [], [] if statistics is None else list(statistics)


def _fake(
    x: Tensor, w: Tensor, gamma: Tensor | None, beta: Tensor | None, running_mean: Tensor | None,
    running_var: Tensor | None, eps: float, geometry: list[int], batch_stats: bool, save: bool,
    backend: str, composition: str,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:  # fmt: skip
    y = empty_nhwc(x, conv_output_shape(x.shape, w.shape, parse_geometry(geometry)[0]))
    shape = pooled_shape(y)
    wide = accumulate_dtype(x.dtype)
    statistics = [x.new_empty(w.shape[0], dtype=wide) for _ in range(5 if save or batch_stats else 0)]
    return empty_nhwc(x, shape), [y, empty_nhwc(x, shape, torch.uint8)] if save else [], statistics


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
    _, kept, statistics = output
    x, w, gamma, beta, _, _, _, geometry, batch_stats, _, backend, composition = inputs
    ctx.mark_non_differentiable(*kept, *statistics)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, w, gamma, beta, *kept, *statistics)
    ctx.constants = (list(geometry), batch_stats, backend, composition)


def _autograd(ctx: Any, dout: Tensor | None, _kept: Any, _statistics: Any) -> tuple[Any, ...]:
    if dout is None:
        return (None,) * 12
    x, w, gamma, beta, y, index, *statistics = ctx.saved_tensors
    geometry, batch_stats, backend, composition = ctx.constants
    needs = ctx.needs_input_grad
    grads = torch.ops.fusedres.stem_backward.default(
        dout.contiguous(memory_format=torch.channels_last), x, w, gamma, beta, y, index, statistics, geometry,
        batch_stats, needs[0], needs[1], needs[2] or needs[3], backend, composition,
    )  # fmt: skip
    return (*(g if need else None for g, need in zip(grads, needs[:4], strict=True)), *(None,) * 8)


def _backward(
    dout: Tensor,
    x: Tensor,
    w: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    y: Tensor,
    index: Tensor,
    statistics: list[Tensor],
    geometry: list[int],
    batch_stats: bool,
    need_x: bool,
    need_weight: bool,
    need_bn: bool,
    backend: str,
    composition: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    stats = Statistics(*statistics)
    g = parse_geometry(geometry)[0]
    dz, sums = kernel(backend, "affine_act_maxpool_bwd")(
        dout, index, y, stats.scale, stats.shift, stats.mean, stats.invstd
    )
    values = y.shape[0] * y.shape[2] * y.shape[3]
    dgamma, dbeta, p, q, r = kernel(backend, "bn_bwd_finalize")(
        sums, gamma, stats.mean, stats.invstd, values, not batch_stats
    )
    dx: Tensor | None = None
    dw: Tensor | None = None
    if need_x or need_weight:
        dy = dz
        formed: tuple[Tensor | None, ...] = (y, p, q, r)
        if composition != "mainloop":  # dy is written out
            dy, _ = kernel(backend, "bn_act_bwd_apply")(dz, *formed, *(None,) * 4)
            formed = (None,) * 4
        if composition == "pointwise":
            dx, dw = library_conv_backward(dy, x, w, g, need_x, need_weight)
        else:
            if need_weight:
                dw = kernel(backend, "conv_wgrad")(
                    x, dy, None, None, *formed, w.shape, *g, prefers_channels_last(w)
                )
            if need_x:
                dx, _ = kernel(backend, "conv_dgrad")(dy, w, *formed, *(None,) * 6, x.shape, *g)
    return (
        absent(x) if dx is None else dx,
        weight_gradient(dw, w),
        (dgamma if gamma is None else dgamma.to(gamma.dtype)) if need_bn else absent(x),
        (dbeta if beta is None else dbeta.to(beta.dtype)) if need_bn else absent(x),
    )


def _backward_fake(
    dout: Tensor, x: Tensor, w: Tensor, gamma: Tensor | None, beta: Tensor | None, y: Tensor, index: Tensor,
    statistics: list[Tensor], geometry: list[int], batch_stats: bool, need_x: bool, need_weight: bool,
    need_bn: bool, backend: str, composition: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    def bn(parameter: Tensor | None) -> Tensor:
        dtype = accumulate_dtype(x.dtype) if parameter is None else parameter.dtype
        return w.new_empty(w.shape[0], dtype=dtype) if need_bn else absent(x)

    return (
        empty_nhwc(x, x.shape) if need_x else absent(x),
        torch.empty_like(w) if need_weight else absent(x),
        bn(gamma),
        bn(beta),
    )


LIBRARY.impl("stem", _forward, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
torch.library.register_fake("fusedres::stem", _fake, lib=LIBRARY)
torch.library.register_autograd("fusedres::stem", _autograd, setup_context=_setup_context, lib=LIBRARY)
LIBRARY.impl("stem_backward", _backward, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
LIBRARY.impl("stem_backward", refuse_double_backward("stem_backward"), "Autograd", with_keyset=True)  # type: ignore[no-untyped-call]
torch.library.register_fake("fusedres::stem_backward", _backward_fake, lib=LIBRARY)


def stem(
    x: Tensor,
    conv: ConvBN,
    *,
    stride: int | Sequence[int] = 2,
    padding: int | Sequence[int] = 3,
    training: bool = False,
    composition: str | None = None,
    plan: Choice | None = None,
) -> Tensor:
    """``max_pool2d(relu(bn(conv(x))), 3, stride=2, padding=1)``, its activation never written out.

    Kept for backward: the convolution's output and a byte a pooled value for the place of its maximum.

    Args:
        x: (N, C, H, W). conv: weight (K, C, R, S), 7 × 7 in ResNet.
        training: batch statistics, and running ones updated; else frozen.
        composition: the caller's wish; ``with fusedres.composition(...)`` beats it.
        plan: what to run where composition or back-end is ``auto``: what a plan chose.

    Returns:
        (N, K, P, Q), channels_last, in ``x``'s dtype (autocast's under autocast).

    Raises:
        ValueError, TypeError: an argument that does not fit, named with the rule and what was given.
    """
    check_wishes("stem", training, composition, plan)
    _checks.activation("stem", "x", x)
    check_parts("stem", "conv.", conv)
    dtype = autocast_to(x)
    if dtype is not None:
        x, conv = x.to(dtype), conv._replace(weight=conv.weight.to(dtype))
    g: Geometry = _checks.conv("stem", x, conv.weight, stride, padding, 1, 1, weight_name="conv.weight")
    if not training and _prepared.nothing_watches(x):
        ready = _prepared_stem(x, conv, g, composition, plan)
        if ready is not None:
            return _prepared.run(ready, x)
    _prepared.only_prepared()
    check_layer("stem", "conv.", conv, x, training)
    backend = resolve_backend(x, None, plan)
    chosen = choose_composition(backend, composition, plan)
    if chosen == "plain" or x.numel() == 0 or transformed():
        return F.max_pool2d(F.relu(plain_conv_bn(x, conv, g, training)), 3, 2, 1)
    batch_stats = training or conv.running_mean is None
    shape = conv_output_shape(x.shape, conv.weight.shape, g)
    if batch_stats:
        verify_batch(shape)
    running = (None, None) if batch_stats else (conv.running_mean, conv.running_var)
    operands = (conv.weight, conv.bn_weight, conv.bn_bias, *running)
    save = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, *operands))
    geometry = [*g.stride, *g.padding, *g.dilation, g.groups]
    out: Tensor
    out, _, statistics = eagerly(
        torch.ops.fusedres.stem.default,
        _checks.nhwc(x),
        *operands,
        conv.eps,
        geometry,
        batch_stats,
        save,
        backend,
        chosen,
    )
    if training:
        update_running(backend, [conv], [Statistics(*statistics)], [shape])
    return out


def _prepared_stem(
    x: Tensor, conv: ConvBN, geometry: Geometry, composition: str | None, plan: Choice | None
) -> Prepared | None:
    """The stem as its back-end prepared it, or ``None``: go the usual way."""
    backend = resolve_backend(x, None, plan)
    if "," in backend or choose_composition(backend, composition, plan) == "plain":
        return None
    layer = Layer(*conv[:5], conv.eps, geometry)
    counter = conv.num_batches_tracked
    return _prepared.prepared_stem(
        backend, x, layer, counter, lambda: check_layer("stem", "conv.", conv, x, False)
    )
