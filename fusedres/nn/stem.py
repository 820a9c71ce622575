"""A ResNet's first four modules, conv1, bn1, relu and maxpool, run as one op."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter

from fusedres import ops
from fusedres.nn._module import FusedModule
from fusedres.nn._parts import conv_norm, is_relu, runs_fused, unobserved

STEM = ("conv1", "bn1", "relu", "maxpool")


def fused_stem(x: Tensor, modules: Mapping[str, nn.Module | None], composition: str | None) -> Tensor | None:
    """conv1 → bn1 → relu → maxpool of ``modules`` as one op; ``None`` where they cannot run fused.

    x (N, C, H, W) of any strides → channels_last: this is where a model's input is converted, once.
    """
    if not runs_fused(x, composition):
        return None
    first = conv_norm(modules["conv1"], modules["bn1"])
    if first is None or not is_relu(modules["relu"]) or not _is_maxpool(modules["maxpool"]):
        return None
    _, stride, padding, dilation, groups = first.geometry
    if dilation != (1, 1) or groups != 1 or isinstance(padding, str):
        return None
    return ops.stem(
        x, first.tensors, stride=stride, padding=padding, training=first.training, composition=composition
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
        stem = fused_stem(x, self._modules, self._composition)
        if stem is None:
            return super().forward(x)  # type: ignore[no-untyped-call,no-any-return]
        out: OrderedDict[str, Tensor] = OrderedDict()
        for name in names[4:]:
            stem = self[name](stem)
            if name in self.return_layers:
                out[self.return_layers[name]] = stem
        return out
