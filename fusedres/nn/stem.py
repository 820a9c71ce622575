"""A ResNet's first four modules, conv1, bn1, relu and maxpool, run as one op."""

from __future__ import annotations

import copy
from collections import OrderedDict

from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter

from fusedres import ops, plan
from fusedres.nn import _recall
from fusedres.nn._module import FusedModule
from fusedres.nn._parts import conv_norm, is_relu, runs_fused, unobserved

STEM = ("conv1", "bn1", "relu", "maxpool")


def fused_stem(owner: FusedModule, x: Tensor) -> Tensor | None:
    """conv1 → bn1 → relu → maxpool of ``owner`` as one op; ``None`` where it cannot or should not be one.

    x (N, C, H, W) of any strides → channels_last: this is where a model's input is converted, once.
    """
    modules, composition = owner._modules, owner._composition
    if not runs_fused(x, composition):
        return None
    chosen = plan.recall(owner, x, composition)
    if chosen.composition == "plain":
        return None
    parts = [part for name in STEM if (part := modules[name]) is not None]
    if (known := _recall.recall(owner, x, chosen, parts)) is not None:
        return known
    first = conv_norm(modules["conv1"], modules["bn1"])
    if first is None or not is_relu(modules["relu"]) or not _is_maxpool(modules["maxpool"]):
        return None
    _, stride, padding, dilation, groups = first.geometry
    if dilation != (1, 1) or groups != 1 or isinstance(padding, str):
        return None
    if chosen.composition == "unknown":
        chosen = plan.resolve(owner, x, composition, "stem", (first,))
        if chosen.composition == "plain":
            return None
    return _recall.noting(
        owner,
        x,
        chosen,
        lambda: ops.stem(
            x,
            first.tensors,
            stride=stride,
            padding=padding,
            training=first.training,
            composition=composition,
            plan=chosen,
        ),
        parts,
    )


def _is_maxpool(pool: nn.Module | None) -> bool:
    """Whether ``pool`` is the one max-pool the op has: 3×3, stride 2, padding 1."""
    return (
        type(pool) is nn.MaxPool2d
        and pool.kernel_size in (3, (3, 3))
        and pool.stride in (2, (2, 2))
        and pool.padding in (1, (1, 1))
        and pool.dilation in (1, (1, 1))
        and not pool.ceil_mode
        and not pool.return_indices
        and unobserved(pool)
    )


class FusedIntermediateLayerGetter(FusedModule, IntermediateLayerGetter):
    """torchvision's ``IntermediateLayerGetter`` (detection and segmentation backbones) with a fused stem."""

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        names = list(self._modules)
        if tuple(names[:4]) != STEM or not self.return_layers.keys().isdisjoint(STEM):
            return super().forward(x)  # type: ignore[no-untyped-call,no-any-return]
        stem = fused_stem(self, x)
        if stem is None:
            return super().forward(x)  # type: ignore[no-untyped-call,no-any-return]
        out: OrderedDict[str, Tensor] = OrderedDict()
        for name in names[4:]:
            stem = self[name](stem)
            if name in self.return_layers:
                out[self.return_layers[name]] = stem
        return out

    def standalone(self) -> nn.Module:
        return StemAlone(self)


class StemAlone(FusedModule, nn.Module):
    """A copy of a model's stem, to be run without the model around it."""

    def __init__(self, owner: FusedModule) -> None:
        super().__init__()
        for name in STEM:
            self.add_module(name, copy.deepcopy(owner._modules[name]))
        self.training = owner.training
        if owner._composition is not None:
            self.composition = owner._composition

    def forward(self, x: Tensor) -> Tensor:
        fused = fused_stem(self, x)
        if fused is not None:
            return fused
        for name in STEM:
            x = self._modules[name](x)  # type: ignore[misc]
        return x
