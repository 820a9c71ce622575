"""torchvision's residual blocks, run as one op where that changes nothing but the speed.

Where a block cannot run fused (another norm layer, a bias, BatchNorms in mixed states, a hook on a
submodule, ``composition="plain"``, tracing by FX or TorchScript), or where a measured plan found that faster,
it runs torchvision's own forward.
"""

from __future__ import annotations

from torch import Tensor
from torchvision.models.resnet import BasicBlock, Bottleneck

from fusedres import ops, plan
from fusedres.nn import _recall
from fusedres.nn._module import FusedModule
from fusedres.nn._parts import Geometry, conv_norm, downsample_conv_norm, is_relu, runs_fused
from fusedres.ops._prepared import only_prepared


def _projection(stride: tuple[int, ...]) -> Geometry:
    """The geometry of a downsample's 1×1 convolution."""
    return (1, 1), stride, (0, 0), (1, 1), 1


class FusedBasicBlock(FusedModule, BasicBlock):
    """torchvision's ``BasicBlock``, its constructor, parameters and state dict included, run fused.

    x (N, C, H, W) → (N, planes, ⌈H / stride⌉, ⌈W / stride⌉), channels_last, in x's (or autocast's) dtype.
    """

    def forward(self, x: Tensor) -> Tensor:
        fused = self._forward_fused(x) if runs_fused(x, self._composition) else None
        if fused is None:
            only_prepared()
            return super().forward(x)
        return fused

    def _forward_fused(self, x: Tensor) -> Tensor | None:
        chosen = plan.recall(self, x, self._composition)
        if chosen.composition == "plain":
            return None
        if (known := _recall.recall(self, x, chosen)) is not None:
            return known
        m = self._modules
        first, second = conv_norm(m["conv1"], m["bn1"]), conv_norm(m["conv2"], m["bn2"])
        if first is None or second is None or not is_relu(m["relu"]) or first.training != second.training:
            return None
        stride = first.geometry[1]
        if first.geometry != ((3, 3), stride, (1, 1), (1, 1), 1):
            return None
        if second.geometry != ((3, 3), (1, 1), (1, 1), (1, 1), 1):
            return None
        skip = None
        if self.downsample is not None:
            skip = downsample_conv_norm(self.downsample)
            if skip is None or skip.training != first.training or skip.geometry != _projection(stride):
                return None
        if chosen.composition == "unknown":
            chosen = plan.resolve(self, x, self._composition, "basic_block", (first, second), skip)
            if chosen.composition == "plain":
                return None
        return _recall.noting(
            self,
            x,
            chosen,
            lambda: ops.basic_block(
                x,
                first.tensors,
                second.tensors,
                skip and skip.tensors,
                stride=stride,
                training=first.training,
                composition=self._composition,
                plan=chosen,
            ),
        )


class FusedBottleneck(FusedModule, Bottleneck):
    """torchvision's ``Bottleneck``, its constructor, parameters and state dict included, run fused.

    x (N, C, H, W) → (N, 4·planes, ⌈H / stride⌉, ⌈W / stride⌉), channels_last, in x's (or autocast's) dtype.
    """

    def forward(self, x: Tensor) -> Tensor:
        fused = self._forward_fused(x) if runs_fused(x, self._composition) else None
        if fused is None:
            only_prepared()
            return super().forward(x)
        return fused

    def _forward_fused(self, x: Tensor) -> Tensor | None:
        chosen = plan.recall(self, x, self._composition)
        if chosen.composition == "plain":
            return None
        if (known := _recall.recall(self, x, chosen)) is not None:
            return known
        m = self._modules
        first, second = conv_norm(m["conv1"], m["bn1"]), conv_norm(m["conv2"], m["bn2"])
        third = conv_norm(m["conv3"], m["bn3"])
        if first is None or second is None or third is None or not is_relu(m["relu"]):
            return None
        if first.training != second.training or first.training != third.training:
            return None
        _, stride, _, dilation, groups = second.geometry
        pointwise = ((1, 1), (1, 1), (0, 0), (1, 1), 1)
        if first.geometry != pointwise or third.geometry != pointwise:
            return None
        if second.geometry != ((3, 3), stride, dilation, dilation, groups):
            return None
        skip = None
        if self.downsample is not None:
            skip = downsample_conv_norm(self.downsample)
            if skip is None or skip.training != first.training or skip.geometry != _projection(stride):
                return None
        if chosen.composition == "unknown":
            chosen = plan.resolve(self, x, self._composition, "bottleneck", (first, second, third), skip)
            if chosen.composition == "plain":
                return None
        return _recall.noting(
            self,
            x,
            chosen,
            lambda: ops.bottleneck(
                x,
                first.tensors,
                second.tensors,
                third.tensors,
                skip and skip.tensors,
                stride=stride,
                dilation=dilation,
                groups=groups,
                training=first.training,
                composition=self._composition,
                plan=chosen,
            ),
        )


for _block in (FusedBasicBlock, FusedBottleneck):
    _recall.plain(_block)
