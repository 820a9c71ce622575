"""Which torchvision modules can run fused, and the tensors they hand to the ops.

Everything is read afresh on every call, because everything may change between two calls: a submodule
replaced, a hook added, BatchNorm frozen, parameters swapped by ``torch.func.functional_call``. The
reads go to the modules' own dictionaries, past ``nn.Module.__getattr__``, which would triple their cost.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook
from torchvision.ops.misc import FrozenBatchNorm2d

from fusedres._settings import COMPOSITION
from fusedres.ops import ConvBN
from fusedres.ops._functional import transformed

#: (kernel, stride, padding, dilation, groups) as ``nn.Conv2d`` keeps them.
Geometry = tuple[tuple[int, ...], tuple[int, ...], "str | tuple[int, ...]", tuple[int, ...], int]


class Layer(NamedTuple):
    """A convolution + BatchNorm as the ops take it; ``training`` means the batch's statistics."""

    tensors: ConvBN
    training: bool
    geometry: Geometry


def runs_fused(x: object, composition: str | None) -> bool:
    """Whether this call may leave torchvision's own forward; ``composition`` is the module's attribute.

    It may not for an ``fx.Proxy`` (node names stay torchvision's) or another input the ops do not take,
    under ``torch.jit.trace``, ``torch.onnx.export``, forward-mode AD and ``torch.func`` transforms (which
    know aten's ops only), under global module hooks, and where ``"plain"`` is chosen.
    """
    return (
        isinstance(x, Tensor)
        and x.dim() == 4
        and x.is_floating_point()
        and COMPOSITION.get(composition) != "plain"
        and not (torch.compiler.is_exporting() and torch.onnx.is_in_onnx_export())
        and not torch.jit.is_tracing()  # type: ignore[no-untyped-call]
        and not transformed()
        and not _has_any_global_hook()  # type: ignore[no-untyped-call]
    )


def unobserved(module: nn.Module) -> bool:
    """Whether nobody can tell that ``module.__call__`` is skipped: no hook, no patched ``forward``."""
    return not (
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in module.__dict__
    )


def is_relu(relu: nn.Module | None) -> bool:
    return type(relu) is nn.ReLU and unobserved(relu)


def conv_norm(conv: nn.Module | None, norm: nn.Module | None) -> Layer | None:
    """``norm(conv(x))`` as the ops take it; ``None`` where they cannot.

    They can for exactly ``nn.Conv2d`` without bias, padded with zeros, and exactly ``nn.BatchNorm2d`` or
    torchvision's ``FrozenBatchNorm2d``, both unobserved.
    """
    if type(conv) is not nn.Conv2d or norm is None or not unobserved(conv) or not unobserved(norm):
        return None
    weight = conv._parameters.get("weight")
    if weight is None or conv._parameters.get("bias", conv) is not None or conv.padding_mode != "zeros":
        return None
    geometry = (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups)
    if type(norm) is nn.BatchNorm2d:
        return _batch_norm(weight, norm, geometry)
    if type(norm) is FrozenBatchNorm2d:
        return _frozen_batch_norm(weight, norm, geometry)
    return None


def _batch_norm(weight: Tensor, norm: nn.BatchNorm2d, geometry: Geometry) -> Layer:
    p, b = norm._parameters, norm._buffers
    mean, var, tracked = b["running_mean"], b["running_var"], b["num_batches_tracked"]
    training = norm.training
    if training and not norm.track_running_stats:
        mean = var = tracked = None
    # Without a counter torch has no cumulative average to take: its factor is then 0.
    momentum = 0.0 if norm.momentum is None and tracked is None else norm.momentum
    tensors = ConvBN(weight, p["weight"], p["bias"], mean, var, tracked, momentum, norm.eps)
    return Layer(tensors, training or mean is None, geometry)


def _frozen_batch_norm(weight: Tensor, norm: FrozenBatchNorm2d, geometry: Geometry) -> Layer:
    b = norm._buffers
    tensors = ConvBN(weight, b["weight"], b["bias"], b["running_mean"], b["running_var"], eps=norm.eps)
    return Layer(tensors, False, geometry)


def downsample_conv_norm(downsample: nn.Module) -> Layer | None:
    """``nn.Sequential(conv, norm)`` as the ops take it; ``None`` for anything else."""
    if type(downsample) is not nn.Sequential or len(downsample) != 2 or not unobserved(downsample):
        return None
    conv, norm = downsample._modules.values()
    return conv_norm(conv, norm)
