"""``FusedResNet`` and its builders: torchvision's, with the same arguments, weights and state dict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from torch import Tensor, nn
from torchvision import models
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from fusedres.nn import fuse
from fusedres.nn._module import FusedModule
from fusedres.nn._recall import through
from fusedres.nn.convert import fused_class, register_fused
from fusedres.nn.head import HEAD, run_head
from fusedres.nn.stem import STEM, StemAlone, fused_stem
from fusedres.ops._prepared import only_prepared

STAGES = ("layer1", "layer2", "layer3", "layer4")


class FusedResNet(FusedModule, ResNet):
    """torchvision's ``ResNet``, its constructor, parameters and state dict included, run fused.

    images (N, 3, H, W), NCHW or channels_last, → logits (N, num_classes). An NCHW input is converted to
    channels_last once, where it enters; parameters stay in the layout the user gives them. Stem, blocks
    and head that cannot run fused run torchvision's own forward.

    Its ``block`` is torchvision's ``BasicBlock`` or ``Bottleneck``, whose fused classes stand in for them, or
    any other block.
    """

    def _make_layer(self, block: type[BasicBlock | Bottleneck], *args: Any, **kwargs: Any) -> nn.Sequential:
        return super()._make_layer(fused_class(block), *args, **kwargs)  # type: ignore[arg-type]

    def _forward_impl(self, x: Tensor) -> Tensor:
        every = [getattr(self, name) for name in (*STEM, *STAGES, *HEAD)]
        out = through(self, every, x, lambda: self._logits(x))
        return super()._forward_impl(x) if out is None else out

    # Each step is remembered with what comes before it, as far as that allows; None: the stem is not fused.

    def _logits(self, x: Tensor) -> Tensor | None:
        trunk = [getattr(self, name) for name in (*STEM, *STAGES)]
        features = through(self, trunk, x, lambda: self._features(x))
        return None if features is None else run_head(self, self.avgpool, self.fc, features)

    def _features(self, x: Tensor) -> Tensor | None:
        stem = fused_stem(self, x)
        if stem is None:
            return None
        stages = [getattr(self, name) for name in STAGES]
        return through(self, stages, stem, lambda: _in_turn(stages, stem))

    def standalone(self) -> nn.Module:
        return StemAlone(self)  # the model's own part; its blocks stand for themselves


def _in_turn(stages: Sequence[nn.Module], x: Tensor) -> Tensor:
    for stage in stages:
        if not isinstance(stage, nn.Sequential):
            only_prepared()
        x = stage(x)
    return x


register_fused(ResNet, FusedResNet)


def _fused(upstream: Callable[..., ResNet]) -> Callable[..., FusedResNet]:
    """torchvision's builder, whose result is fused: weights, legacy arguments and errors stay its own."""

    @wraps(upstream)
    def build(*args: Any, **kwargs: Any) -> FusedResNet:
        model = fuse(upstream(*args, **kwargs), inplace=True)
        assert isinstance(model, FusedResNet)
        return model

    build.__module__ = __name__
    build.__annotations__ = {**upstream.__annotations__, "return": FusedResNet}
    return build


resnet18 = _fused(models.resnet18)
resnet34 = _fused(models.resnet34)
resnet50 = _fused(models.resnet50)
resnet101 = _fused(models.resnet101)
resnet152 = _fused(models.resnet152)
resnext50_32x4d = _fused(models.resnext50_32x4d)
resnext101_32x8d = _fused(models.resnext101_32x8d)
resnext101_64x4d = _fused(models.resnext101_64x4d)
wide_resnet50_2 = _fused(models.wide_resnet50_2)
wide_resnet101_2 = _fused(models.wide_resnet101_2)
