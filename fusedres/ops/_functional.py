"""From a user's call to a block op: checks, autocast, plan, running statistics."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from fusedres._settings import BACKEND, COMPOSITION, MEMORY, PRECISION
from fusedres.ops import _checks, _prepared
from fusedres.ops._block_op import BlockOp, flat_geometry, statistics_of
from fusedres.ops._caches import eagerly
from fusedres.ops._dispatch import COMPOSITIONS, Prepared, resolve_backend
from fusedres.ops._planned import Choice
from fusedres.ops._registry import backends_of, kernel
from fusedres.ops._residual import Layer, Statistics
from fusedres.ops._shapes import Geometry, conv_output_shape


class ConvBN(NamedTuple):
    """The tensors and constants of one convolution and the BatchNorm behind it.

    ``weight`` is (K, C / groups, R, S); the others are (K,) each, ``num_batches_tracked`` an int64
    scalar tensor. ``momentum=None`` is torch's cumulative average.
    """

    weight: Tensor
    bn_weight: Tensor | None = None
    bn_bias: Tensor | None = None
    running_mean: Tensor | None = None
    running_var: Tensor | None = None
    num_batches_tracked: Tensor | None = None
    momentum: float | None = 0.1
    eps: float = 1e-5


def check_wishes(op: str, training: bool, composition: str | None, plan: Choice | None) -> None:
    """What a caller asks of a block beside its numbers."""
    if not isinstance(training, bool):
        raise TypeError(f"{op}: `training` must be True or False; got {training!r}")
    if composition is not None:
        COMPOSITION.check(composition, f"{op}: `composition`")
    if plan is None:
        return
    if not isinstance(plan, Choice):
        raise TypeError(f"{op}: `plan` must be a Choice; got {type(plan).__name__}")
    _check_choice(op, plan)


@lru_cache
def _check_choice(op: str, plan: Choice) -> None:
    COMPOSITION.check(plan.composition, f"{op}: `plan.composition`")
    for name in plan.backend.split(","):  # of all ops, then op=name
        BACKEND.check(name.rpartition("=")[2], f"{op}: `plan.backend`")


def check_parts(op: str, name: str, layer: ConvBN) -> None:
    """What is read of a layer before its tensors are checked: by autocast, by a prepared block's key."""
    if not isinstance(layer, ConvBN):
        raise TypeError(f"{op}: `{name[:-1]}` must be a ConvBN; got {type(layer).__name__}")
    _checks.tensor(op, name + "weight", layer.weight)
    _checks.number(op, name + "eps", layer.eps)


def check_layer(op: str, name: str, layer: ConvBN, x: Tensor, training: bool) -> None:
    """The BatchNorm side of a layer; convolutions are checked along the chain."""
    channels = layer.weight.shape[0]
    vectors = {
        "bn_weight": layer.bn_weight,
        "bn_bias": layer.bn_bias,
        "running_mean": layer.running_mean,
        "running_var": layer.running_var,
    }
    for vector_name, vector in vectors.items():
        _checks.norm_vector(op, name + vector_name, vector, channels, x)
    _checks.both_or_neither(
        op, **{name + "running_mean": layer.running_mean, name + "running_var": layer.running_var}
    )
    _checks.batch_count(op, name + "num_batches_tracked", layer.num_batches_tracked)
    if layer.momentum is not None:
        _checks.number(op, name + "momentum", layer.momentum)
    if (
        training
        and layer.momentum is None
        and layer.running_mean is not None
        and layer.num_batches_tracked is None
    ):
        raise ValueError(
            f"{op}: `{name}num_batches_tracked` is needed for the cumulative average (momentum=None); "
            "got None"
        )


def autocast_to(x: Tensor) -> torch.dtype | None:
    """The dtype autocast asks for on ``x``'s device (meta has none), where it is on and ``x`` takes part."""
    device = x.device.type
    if device != "meta" and torch.is_autocast_enabled(device) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return None


def choose_composition(backend: str, attribute: str | None, plan: Choice | None) -> str:
    """What context, attribute, process or environment say; where that is ``auto``, plan, then rules."""
    chosen = COMPOSITION.get(attribute)
    if chosen == "auto" and plan is not None:
        chosen = plan.composition
    return COMPOSITIONS[backends_of(backend)[0]] if chosen == "auto" else chosen


def transformed() -> bool:
    """Whether forward-mode AD or a ``torch.func`` transform is at work: they know aten's ops only."""
    return bool(torch._C._are_functorch_transforms_active()) or forward_ad._current_level >= 0


def verify_batch(shape: Sequence[int]) -> None:
    """torch's own rule and words: one value per channel has no variance."""
    if shape[0] * shape[2] * shape[3] == 1:
        raise ValueError(
            f"Expected more than 1 value per channel when training, got input size {torch.Size(shape)}"
        )


def chain_names(count: int) -> list[str]:
    """What messages put before the parts of a chain's layers; of a lone layer, nothing."""
    return [f"conv{i + 1}." for i in range(count)] if count > 1 else [""]


def check_block(
    op: BlockOp,
    x: Tensor,
    layers: Sequence[ConvBN],
    geometries: Sequence[Geometry],
    downsample: ConvBN | None,
    skip_geometry: Geometry | None,
    residual: Tensor | None,
    training: bool,
) -> tuple[list[tuple[str, ConvBN, Geometry]], list[Sequence[int]]]:
    """Raise where a layer does not fit; else (name, layer, geometry) of each, and the chain's shapes."""
    every = [*zip(chain_names(len(layers)), layers, geometries, strict=True)]
    shapes: list[Sequence[int]] = [x.shape]
    for (name, layer, g), size in zip(every, op.filters, strict=True):
        _checks.same_dtype_device(op.name, x, **{name + "weight": layer.weight})
        _checks.conv_shapes(
            op.name, "x", shapes[-1], layer.weight, *g, weight_name=name + "weight", size=size
        )
        check_layer(op.name, name, layer, x, training)
        shapes.append(conv_output_shape(shapes[-1], layer.weight.shape, g))
    if downsample is not None and skip_geometry is not None:
        every.append(("downsample.", downsample, skip_geometry))
        _checks.same_dtype_device(op.name, x, **{"downsample.weight": downsample.weight})
        _checks.conv_shapes(
            op.name,
            "x",
            x.shape,
            downsample.weight,
            *skip_geometry,
            weight_name="downsample.weight",
            size=(1, 1),
        )
        check_layer(op.name, "downsample.", downsample, x, training)
        _checks.equal_shapes(
            op.name,
            "downsample",
            conv_output_shape(x.shape, downsample.weight.shape, skip_geometry),
            shapes[-1],
        )
    elif not op.residual:
        _checks.equal_shapes(op.name, "x", x.shape, shapes[-1])
    _checks.like(op.name, "residual", residual, shapes[-1], x)

    return every, shapes


def _prepared_block(
    op: BlockOp,
    x: Tensor,
    layers: Sequence[ConvBN],
    geometries: Sequence[Geometry],
    downsample: ConvBN | None,
    skip_geometry: Geometry | None,
    composition: str | None,
    plan: Choice | None,
) -> Prepared | None:
    """The block readied by its back-end, for plain inference; see :mod:`fusedres.ops._prepared`."""
    backend = resolve_backend(x, None, plan)
    if "," in backend or choose_composition(backend, composition, plan) == "plain":
        return None
    chain = [Layer(*layer[:5], layer.eps, g) for layer, g in zip(layers, geometries, strict=True)]
    counters = [layer.num_batches_tracked for layer in layers]
    skip = None
    if downsample is not None and skip_geometry is not None:
        skip = Layer(*downsample[:5], downsample.eps, skip_geometry)
        counters.append(downsample.num_batches_tracked)
    return _prepared.prepared_block(
        backend,
        x,
        chain,
        skip,
        counters,
        lambda: check_block(op, x, layers, geometries, downsample, skip_geometry, None, False),
    )


def run_block(
    op: BlockOp,
    x: Tensor,
    layers: Sequence[ConvBN],
    geometries: Sequence[Geometry],
    downsample: ConvBN | None,
    skip_geometry: Geometry | None,
    residual: Tensor | None,
    *,
    relu: bool,
    training: bool,
    composition: str | None,
    plan: Choice | None = None,
) -> Tensor:
    """Check, choose and run one block; update its running statistics in training."""
    check_wishes(op.name, training, composition, plan)
    _checks.activation(op.name, "x", x)
    for name, layer in zip(chain_names(len(layers)), layers, strict=True):
        check_parts(op.name, name, layer)
    if downsample is not None:
        check_parts(op.name, "downsample.", downsample)
    if residual is not None:
        _checks.tensor(op.name, "residual", residual)
    dtype = autocast_to(x)
    if dtype is not None:
        x = x.to(dtype)
        layers = [layer._replace(weight=layer.weight.to(dtype)) for layer in layers]
        downsample = downsample and downsample._replace(weight=downsample.weight.to(dtype))
        residual = None if residual is None else residual.to(dtype)
    if residual is None and relu and not (op.residual or training) and _prepared.nothing_watches(x):
        ready = _prepared_block(op, x, layers, geometries, downsample, skip_geometry, composition, plan)
        if ready is not None:
            return _prepared.run(ready, x)
    _prepared.only_prepared()
    every, shapes = check_block(op, x, layers, geometries, downsample, skip_geometry, residual, training)
    backend = resolve_backend(x, None, plan)
    chosen = choose_composition(backend, composition, plan)
    batch = [training or layer.running_mean is None for _, layer, _ in every]
    if chosen == "plain" or x.numel() == 0 or any(batch) != all(batch) or transformed():
        return plain_block(x, every, downsample is not None, residual, op.residual, relu, training)
    if batch[0]:
        for shape in shapes[1:]:
            verify_batch(shape)

    operands: list[Tensor | None] = []
    for _, layer, _ in every:
        running = (None, None) if batch[0] else (layer.running_mean, layer.running_var)
        operands += [layer.weight, layer.bn_weight, layer.bn_bias, *running]
    operands += [None] * (5 * (op.layer_count - len(every)))
    save = torch.is_grad_enabled() and any(
        t is not None and t.requires_grad for t in (x, residual, *operands)
    )
    out, _, statistics = eagerly(
        op, _checks.nhwc(x), *operands, _checks.nhwc(residual), [layer.eps for _, layer, _ in every],
        flat_geometry([g for _, _, g in every]), relu, batch[0], save, backend, chosen,
        MEMORY.get() == "recompute", PRECISION.get(),
    )  # fmt: skip
    if training:
        output_shapes = [*shapes[1:], *([shapes[-1]] if downsample is not None else [])]
        update_running(backend, [layer for _, layer, _ in every], statistics_of(statistics), output_shapes)
    return out


def update_running(
    backend: str, layers: Sequence[ConvBN], statistics: Sequence[Statistics], shapes: Sequence[Sequence[int]]
) -> None:
    """Move each layer's running statistics towards the batch's, once a forward: a block's in one call.

    Apart are layers that differ in momentum or in whether they count, and a second use of one BatchNorm.
    """
    seen: list[Tensor] = []
    together: dict[tuple[float | None, bool, int], list[tuple[ConvBN, Statistics, int]]] = {}
    for layer, stats, shape in zip(layers, statistics, shapes, strict=True):
        if layer.running_mean is None:
            if layer.num_batches_tracked is not None:
                layer.num_batches_tracked.add_(1)
            continue
        uses = len([other for other in seen if other is layer.running_mean])
        seen.append(layer.running_mean)
        key = (layer.momentum, layer.num_batches_tracked is not None, uses)
        together.setdefault(key, []).append((layer, stats, shape[0] * shape[2] * shape[3]))
    for (momentum, counted, _), group in together.items():
        kernel(backend, "bn_update_running")(
            [layer.running_mean for layer, _, _ in group],
            [layer.running_var for layer, _, _ in group],
            [layer.num_batches_tracked for layer, _, _ in group] if counted else [],
            [stats.mean for _, stats, _ in group],
            [stats.var for _, stats, _ in group],
            [values for _, _, values in group],
            momentum,
        )


def plain_block(
    x: Tensor,
    every: Sequence[tuple[str, ConvBN, Geometry]],
    has_downsample: bool,
    residual: Tensor | None,
    residual_only: bool,
    relu: bool,
    training: bool,
) -> Tensor:
    """The block in PyTorch's own ops: the plain composition, and empty batches."""
    chain = every[:-1] if has_downsample else every
    out = x
    for i, (_, layer, g) in enumerate(chain):
        out = plain_conv_bn(out, layer, g, training)
        if i < len(chain) - 1:
            out = F.relu(out)
    if has_downsample:
        out = out + plain_conv_bn(x, every[-1][1], every[-1][2], training)
    elif residual is not None:
        out = out + residual
    elif not residual_only:
        out = out + x
    return F.relu(out) if relu else out


def plain_conv_bn(x: Tensor, layer: ConvBN, g: Geometry, training: bool) -> Tensor:
    """Convolution and BatchNorm as ``nn.Conv2d`` and ``nn.BatchNorm2d`` run them."""
    y = F.conv2d(x, layer.weight, None, g.stride, g.padding, g.dilation, g.groups)
    momentum = layer.momentum
    if training and layer.num_batches_tracked is not None:
        layer.num_batches_tracked.add_(1)
        if momentum is None:
            momentum = 1.0 / float(layer.num_batches_tracked)
    return F.batch_norm(
        y, layer.running_mean, layer.running_var, layer.bn_weight, layer.bn_bias,
        training or layer.running_mean is None, 0.0 if momentum is None else momentum, layer.eps,
    )  # fmt: skip
